//! What the user is told about: signals, by which method each is served, and how exact that is.

use serde::Serialize;

use super::{ListenMethod, ProbeStatus};

/// How far a number can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exactness {
    /// Every event is seen and counted.
    Exact,
    /// Exact, as of the last look; events between two looks are placed within 100 ms.
    ExactByPoll,
    /// Every event is counted but for a few that the kernel may hide; the ledger shows them.
    NearExact,
    /// At least this many.
    LowerBound,
    /// Not to be had on this kernel, or switched off.
    Unavailable,
}

impl Exactness {
    /// The value of the `exactness` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::ExactByPoll => "exact_by_poll",
            Self::NearExact => "near_exact",
            Self::LowerBound => "lower_bound",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A question that some metric answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Retransmitted data and SYN segments.
    Retransmits,
    /// Retransmitted SYN-ACKs.
    SynAckRetransmits,
    /// Listen drops by listener.
    ListenDrops,
    /// Listen overflows by listener.
    ListenOverflows,
    /// SYN cookies by listener.
    SynCookies,
    /// Lengths and limits of accept and SYN queues.
    AcceptQueue,
    /// Name lookups.
    Dns,
    /// What listeners asked `listen()` for.
    ListenArgument,
    /// Outgoing handshakes: latency, failures, and those under way.
    Connects,
    /// Waits in accept queues.
    AcceptLatency,
    /// Resets, sent and received.
    Resets,
}

impl Signal {
    /// The value of the `signal` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retransmits => "retransmits",
            Self::SynAckRetransmits => "syn_ack_retransmits",
            Self::ListenDrops => "listen_drops",
            Self::ListenOverflows => "listen_overflows",
            Self::SynCookies => "syn_cookies",
            Self::AcceptQueue => "accept_queue",
            Self::Dns => "dns",
            Self::ListenArgument => "listen_argument",
            Self::Connects => "connects",
            Self::AcceptLatency => "accept_latency",
            Self::Resets => "resets",
        }
    }
}

/// How a signal is served on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignalInfo {
    /// The signal.
    pub signal: Signal,
    /// The method in use.
    pub method: &'static str,
    /// How exact it is.
    pub exactness: Exactness,
    /// Why, in words for the user.
    pub because: &'static str,
}

impl SignalInfo {
    /// A signal that is not to be had.
    pub(super) const fn unavailable(signal: Signal, because: &'static str) -> Self {
        Self {
            signal,
            method: "none",
            exactness: Exactness::Unavailable,
            because,
        }
    }
}

/// Why most of those that are not to be had are not.
pub(super) const DETACHED: &str = "a probe that it needs is not attached";

/// Derives the signals from the probes that watch.
#[must_use]
pub fn signals(probes: &[ProbeStatus], listen: ListenMethod) -> Vec<SignalInfo> {
    let method = |name: &str| {
        probes
            .iter()
            .find(|probe| probe.probe == name && probe.attached)
            .map(|probe| probe.method)
    };
    let retransmits = |signal, probe: &str| match method(probe) {
        Some("tracepoint") => SignalInfo {
            signal,
            method: "tracepoint",
            exactness: Exactness::LowerBound,
            because: "the formatted record has neither the number of segments nor the namespace",
        },
        Some(method) => SignalInfo {
            signal,
            method,
            exactness: Exactness::Exact,
            because: "every event is counted, in segments, held against the socket's own total",
        },
        None => SignalInfo::unavailable(signal, DETACHED),
    };
    let listeners = [
        "inet_sock_set_state",
        "tcp_destroy_sock",
        "listener_readings",
    ]
    .iter()
    .all(|probe| method(probe).is_some());
    vec![
        retransmits(Signal::Retransmits, "tcp_retransmit_skb"),
        retransmits(Signal::SynAckRetransmits, "tcp_retransmit_synack"),
        if listeners {
            listen_drops(listen)
        } else {
            SignalInfo::unavailable(Signal::ListenDrops, DETACHED)
        },
        if listeners {
            listen_overflows(listen)
        } else {
            SignalInfo::unavailable(Signal::ListenOverflows, DETACHED)
        },
        if listeners {
            syn_cookies(listen)
        } else {
            SignalInfo::unavailable(Signal::SynCookies, DETACHED)
        },
        match (listeners, method("inet_csk_reqsk_queue_add")) {
            (false, _) => SignalInfo::unavailable(Signal::AcceptQueue, DETACHED),
            (true, Some(method)) => SignalInfo {
                signal: Signal::AcceptQueue,
                method,
                exactness: Exactness::Exact,
                because: "the queue is looked at after each connection that enters it",
            },
            (true, None) => SignalInfo {
                signal: Signal::AcceptQueue,
                method: "tp_btf",
                exactness: Exactness::LowerBound,
                because: "sampled after each handshake, when others may have entered or left, and ten \
                          times a second; of sockets that share an address only ten times a second",
            },
        },
        dns(probes),
    ]
}

/// Lowers the exactness of signals of which a probe has missed something: the kernel skipped some of
/// its runs, as `missed` says; and of retransmissions where not every socket can be followed, for the
/// reason in `blind_spot`.
#[must_use]
pub fn lowered(
    signals: &[SignalInfo],
    blind_spot: Option<&'static str>,
    missed: impl Fn(&str) -> bool,
) -> Vec<SignalInfo> {
    let serves = |signal: Signal, probe: &str| match signal {
        Signal::Retransmits => probe == "tcp_retransmit_skb",
        Signal::SynAckRetransmits => probe == "tcp_retransmit_synack",
        Signal::SynCookies => super::listen_drops::counts(probe),
        Signal::ListenDrops | Signal::ListenOverflows => {
            probe == "kfree_skb" || super::listen_drops::counts(probe)
        }
        Signal::AcceptQueue => probe == "inet_csk_reqsk_queue_add",
        Signal::ListenArgument | Signal::Connects => probe == "inet_sock_set_state",
        Signal::AcceptLatency => matches!(probe, "inet_csk_accept" | "sys_exit_accept"),
        Signal::Resets => matches!(probe, "tcp_send_reset" | "tcp_receive_reset"),
        Signal::Dns => probe == "dns",
    };
    signals
        .iter()
        .map(|info| {
            let fell_short = super::PROBES
                .iter()
                .any(|probe| serves(info.signal, probe.name) && missed(probe.name));
            let blind = blind_spot.filter(|_| info.signal == Signal::Retransmits);
            match (info.exactness, blind) {
                (Exactness::Exact, Some(because)) => SignalInfo {
                    exactness: Exactness::NearExact,
                    because,
                    ..info.clone()
                },
                (Exactness::Exact | Exactness::ExactByPoll, _) if fell_short => SignalInfo {
                    exactness: Exactness::NearExact,
                    because: "the kernel has skipped runs of a probe: see netobs_events_lost_total, \
                              reason recursion",
                    ..info.clone()
                },
                _ => info.clone(),
            }
        })
        .collect()
}

fn dns(probes: &[ProbeStatus]) -> SignalInfo {
    let signal = Signal::Dns;
    match probes.iter().find(|probe| probe.probe == "dns") {
        Some(probe) if probe.attached => SignalInfo {
            signal,
            method: probe.method,
            exactness: Exactness::Exact,
            because: "every query and answer on UDP port 53 is seen; none over TCP, TLS or HTTPS",
        },
        Some(probe) if !probe.wanted => SignalInfo::unavailable(
            signal,
            "its probe costs a little on every packet: asked for with --probe dns",
        ),
        _ => SignalInfo::unavailable(signal, DETACHED),
    }
}

fn listen_drops(method: ListenMethod) -> SignalInfo {
    let signal = Signal::ListenDrops;
    match method {
        ListenMethod::Differential { by, exact: true } => SignalInfo {
            signal,
            method: by,
            exactness: Exactness::Exact,
            because: "the kernel's own counter, read before and after each packet of a listener",
        },
        ListenMethod::Differential { by, exact: false } => SignalInfo {
            signal,
            method: by,
            exactness: Exactness::NearExact,
            because: "the kernel may skip a probe that interrupts another one, or that can itself be \
                      preempted",
        },
        ListenMethod::Identity => SignalInfo {
            signal,
            method: "sk_drops_less_kfree_skb",
            exactness: Exactness::ExactByPoll,
            because: "each listener's sk_drops less the packets it dropped for other reasons",
        },
        ListenMethod::Bounded => SignalInfo {
            signal,
            method: "sk_drops",
            exactness: Exactness::LowerBound,
            because: "sk_drops counts other packets too; only as many as the namespace's own \
                      counter allows are attributed",
        },
    }
}

fn listen_overflows(method: ListenMethod) -> SignalInfo {
    let drops = listen_drops(method);
    match method {
        ListenMethod::Identity => SignalInfo {
            signal: Signal::ListenOverflows,
            exactness: Exactness::LowerBound,
            because: "exact unless several listeners of one namespace drop for different reasons \
                      within 100 ms",
            ..drops
        },
        _ => SignalInfo {
            signal: Signal::ListenOverflows,
            ..drops
        },
    }
}

fn syn_cookies(method: ListenMethod) -> SignalInfo {
    let signal = Signal::SynCookies;
    match method {
        ListenMethod::Differential { .. } => SignalInfo {
            signal,
            ..listen_drops(method)
        },
        ListenMethod::Identity | ListenMethod::Bounded => SignalInfo::unavailable(
            signal,
            "the functions that send and check them cannot be watched: netobs_netstat_total has those \
             of each namespace",
        ),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A probe that is attached.
    pub(in crate::probes) fn status(probe: &'static str, method: &'static str) -> ProbeStatus {
        ProbeStatus {
            probe,
            method,
            attached: true,
            wanted: true,
            running: None,
            reasons: Vec::new(),
            without: None,
        }
    }

    #[test]
    fn with_nothing_attached_nothing_is_claimed() {
        let all = signals(&[], ListenMethod::Identity);
        assert!(
            all.iter()
                .all(|info| info.exactness == Exactness::Unavailable)
        );
    }

    #[test]
    fn what_the_kernel_skipped_lowers_the_signals_that_it_serves() {
        let probes = [
            status("inet_sock_set_state", "tp_btf"),
            status("tcp_destroy_sock", "tp_btf"),
            status("listener_readings", "iter"),
            status("tcp_retransmit_skb", "tp_btf"),
        ];
        let by = ListenMethod::Differential {
            by: "fentry",
            exact: true,
        };
        let all = signals(&probes, by);
        assert_eq!(lowered(&all, None, |_| false), all);
        let blind = lowered(&all, Some("why"), |_| false);
        assert_eq!(
            (blind[0].exactness, blind[0].because),
            (Exactness::NearExact, "why")
        );
        assert_eq!(blind[1..], all[1..]);
        let after = lowered(&all, None, |probe| probe == "tcp_check_req");
        let exactness = |wanted: Signal| {
            let info = after.iter().find(|info| info.signal == wanted);
            info.unwrap().exactness
        };
        assert_eq!(exactness(Signal::ListenDrops), Exactness::NearExact);
        assert_eq!(exactness(Signal::ListenOverflows), Exactness::NearExact);
        assert_eq!(exactness(Signal::Retransmits), Exactness::Exact);
        assert_eq!(exactness(Signal::SynAckRetransmits), Exactness::Unavailable);
    }

    #[test]
    fn classic_retransmits_are_a_lower_bound() {
        let info = signals(
            &[status("tcp_retransmit_skb", "tracepoint")],
            ListenMethod::Bounded,
        );
        assert_eq!(
            (info[0].method, info[0].exactness),
            ("tracepoint", Exactness::LowerBound)
        );
    }

    #[test]
    fn listen_drops_are_as_exact_as_their_method() {
        let probes = [
            status("inet_sock_set_state", "tp_btf"),
            status("tcp_destroy_sock", "tp_btf"),
            status("listener_readings", "iter"),
        ];
        let exactness = |method| signals(&probes, method)[2].exactness;
        assert_eq!(exactness(ListenMethod::Bounded), Exactness::LowerBound);
        assert_eq!(exactness(ListenMethod::Identity), Exactness::ExactByPoll);
        let by = |by, exact| ListenMethod::Differential { by, exact };
        assert_eq!(exactness(by("fentry", true)), Exactness::Exact);
        assert_eq!(exactness(by("kprobe", false)), Exactness::NearExact);
    }
}
