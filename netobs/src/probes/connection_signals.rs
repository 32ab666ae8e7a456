//! How outgoing handshakes, waits in accept queues and resets are known.

use netobs_common::kernel::Settings;

use super::{Exactness, ProbeStatus, Signal, SignalInfo};

/// The signals of connections.
#[must_use]
pub fn signals(settings: &Settings, probes: &[ProbeStatus]) -> Vec<SignalInfo> {
    let method = |name: &str| {
        probes
            .iter()
            .find(|probe| probe.probe == name && probe.attached)
            .map(|probe| probe.method)
    };
    vec![
        connects(method("inet_sock_set_state")),
        accept_latency(
            method("inet_sock_set_state"),
            method("inet_csk_accept"),
            method("sys_exit_accept"),
        ),
        resets(
            method("tcp_send_reset"),
            method("tcp_receive_reset"),
            settings.reset_reason != 0,
        ),
    ]
}

fn connects(states: Option<&'static str>) -> SignalInfo {
    let signal = Signal::Connects;
    match states {
        Some(method) => SignalInfo {
            signal,
            method,
            exactness: Exactness::Exact,
            because: "every handshake from its SYN_SENT to its end; a connect() that finds no route \
                      fails before that, and is not seen",
        },
        None => SignalInfo::unavailable(signal, "the probe inet_sock_set_state is not attached"),
    }
}

fn accept_latency(
    states: Option<&'static str>,
    function: Option<&'static str>,
    calls: Option<&'static str>,
) -> SignalInfo {
    let signal = Signal::AcceptLatency;
    match (states, function, calls) {
        (None, _, _) => SignalInfo::unavailable(
            signal,
            "the probe inet_sock_set_state, which sees handshakes end, is not attached",
        ),
        (_, Some(method), _) => SignalInfo {
            signal,
            method,
            exactness: Exactness::Exact,
            because: "every connection that leaves a queue, io_uring's and the kernel's own included; \
                      those older than netobs are counted without their wait",
        },
        (_, None, Some(method)) => SignalInfo {
            signal,
            method,
            exactness: Exactness::LowerBound,
            because: "by what accept() and accept4() return: accepts by io_uring, by 32-bit programs and \
                      by the kernel itself are not seen; where processes of several names listen on one \
                      address, which of them accepted is not known",
        },
        (_, None, None) => SignalInfo::unavailable(
            signal,
            "inet_csk_accept cannot be probed on this kernel, and the accept() system calls are not \
             watched: --probe sys_exit_accept does that, and slows every system call of every process \
             by some 30 ns",
        ),
    }
}

fn resets(
    sent: Option<&'static str>,
    received: Option<&'static str>,
    all_sent: bool,
) -> SignalInfo {
    let signal = Signal::Resets;
    let (exactness, because) = match (sent, received, all_sent) {
        (Some(_), Some(_), true) => (
            Exactness::Exact,
            "each RST that is sent, with the kernel's reason, and each that ends a connection of this \
             host",
        ),
        (Some(_), Some(_), false) => (
            Exactness::LowerBound,
            "this kernel does not trace resets without a full socket (before 6.10): refused connections \
             are seen at the client only, and answers to stray packets not at all",
        ),
        (Some(_), None, _) => (
            Exactness::LowerBound,
            "only resets that this host sends: the probe tcp_receive_reset is not attached",
        ),
        (None, Some(_), _) => (
            Exactness::LowerBound,
            "only resets that are received: the probe tcp_send_reset is not attached",
        ),
        (None, None, _) => (
            Exactness::Unavailable,
            "the probes tcp_send_reset and tcp_receive_reset are not attached",
        ),
    };
    SignalInfo {
        signal,
        method: sent.or(received).unwrap_or("none"),
        exactness,
        because,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::signals::tests::status;

    fn exactness(probes: &[ProbeStatus], reset_reason: u16) -> Vec<(&'static str, Exactness)> {
        let settings = Settings {
            reset_reason,
            ..Settings::UNKNOWN
        };
        signals(&settings, probes)
            .iter()
            .map(|info| (info.method, info.exactness))
            .collect()
    }

    #[test]
    fn each_claims_what_its_probes_see() {
        let none = ("none", Exactness::Unavailable);
        assert_eq!(exactness(&[], 1), [none; 3]);
        let mut probes = vec![
            status("inet_sock_set_state", "tp_btf"),
            status("sys_exit_accept", "tracepoint"),
            status("tcp_send_reset", "tp_btf"),
            status("tcp_receive_reset", "tp_btf"),
        ];
        assert_eq!(
            exactness(&probes, 0),
            [
                ("tp_btf", Exactness::Exact),
                ("tracepoint", Exactness::LowerBound),
                ("tp_btf", Exactness::LowerBound),
            ]
        );
        probes.push(status("inet_csk_accept", "fexit"));
        assert_eq!(
            exactness(&probes, 1),
            [
                ("tp_btf", Exactness::Exact),
                ("fexit", Exactness::Exact),
                ("tp_btf", Exactness::Exact),
            ]
        );
        probes.remove(3);
        let [_, _, resets] = exactness(&probes, 1)[..] else {
            panic!("three signals")
        };
        assert_eq!(resets, ("tp_btf", Exactness::LowerBound));
    }
}
