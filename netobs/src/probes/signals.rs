//! What the user is told about: signals, by which method each is served, and how exact that is.

use serde::Serialize;

use super::ProbeStatus;

/// How far a number can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exactness {
    /// Every event is seen and counted.
    Exact,
    /// Exact, as of the last look; events between two looks are placed within 100 ms.
    ExactByPoll,
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
    /// Lengths and limits of accept and SYN queues.
    AcceptQueue,
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
            Self::AcceptQueue => "accept_queue",
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

/// Derives the signals from the probes that watch.
#[must_use]
pub fn signals(probes: &[ProbeStatus]) -> Vec<SignalInfo> {
    let method = |name: &str| {
        probes
            .iter()
            .find(|probe| probe.probe == name && probe.attached)
            .map(|probe| probe.method)
    };
    let retransmits = |signal, probe: &str| match method(probe) {
        Some("tp_btf") => SignalInfo {
            signal,
            method: "tp_btf",
            exactness: Exactness::Exact,
            because: "every event is counted, in segments, held against the socket's own total",
        },
        Some(classic) => SignalInfo {
            signal,
            method: classic,
            exactness: Exactness::LowerBound,
            because: "the formatted record has neither the number of segments nor the namespace",
        },
        None => unavailable(signal),
    };
    let listeners = [
        "inet_sock_set_state",
        "tcp_destroy_sock",
        "listener_readings",
    ]
    .iter()
    .all(|probe| method(probe).is_some());
    let listen = |signal| {
        if !listeners {
            unavailable(signal)
        } else if method("kfree_skb").is_some() {
            SignalInfo {
                signal,
                method: "sk_drops_less_kfree_skb",
                exactness: if signal == Signal::ListenDrops {
                    Exactness::ExactByPoll
                } else {
                    Exactness::LowerBound
                },
                because: if signal == Signal::ListenDrops {
                    "each listener's sk_drops less the packets it dropped for other reasons"
                } else {
                    "exact unless several listeners of one namespace drop for different reasons \
                     within 100 ms"
                },
            }
        } else {
            SignalInfo {
                signal,
                method: "sk_drops",
                exactness: Exactness::LowerBound,
                because: "sk_drops counts other packets too; only as many as the namespace's own \
                          counter allows are attributed",
            }
        }
    };
    vec![
        retransmits(Signal::Retransmits, "tcp_retransmit_skb"),
        retransmits(Signal::SynAckRetransmits, "tcp_retransmit_synack"),
        listen(Signal::ListenDrops),
        listen(Signal::ListenOverflows),
        if listeners {
            SignalInfo {
                signal: Signal::AcceptQueue,
                method: "iter",
                exactness: Exactness::LowerBound,
                because: "sampled ten times a second: a shorter peak is seen only if it overflowed",
            }
        } else {
            unavailable(Signal::AcceptQueue)
        },
    ]
}

fn unavailable(signal: Signal) -> SignalInfo {
    SignalInfo {
        signal,
        method: "none",
        exactness: Exactness::Unavailable,
        because: "a probe that it needs is not attached",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(probe: &'static str, method: &'static str) -> ProbeStatus {
        ProbeStatus {
            probe,
            method,
            attached: true,
            program: None,
            reasons: Vec::new(),
            without: None,
        }
    }

    #[test]
    fn with_nothing_attached_nothing_is_claimed() {
        assert!(
            signals(&[])
                .iter()
                .all(|info| info.exactness == Exactness::Unavailable)
        );
    }

    #[test]
    fn classic_retransmits_are_a_lower_bound() {
        let info = signals(&[status("tcp_retransmit_skb", "tracepoint")]);
        assert_eq!(
            (info[0].method, info[0].exactness),
            ("tracepoint", Exactness::LowerBound)
        );
    }

    #[test]
    fn listen_drops_without_kfree_skb_are_a_lower_bound() {
        let mut probes = vec![
            status("inet_sock_set_state", "tp_btf"),
            status("tcp_destroy_sock", "tp_btf"),
            status("listener_readings", "iter"),
        ];
        assert_eq!(signals(&probes)[2].exactness, Exactness::LowerBound);
        probes.push(status("kfree_skb", "tp_btf"));
        assert_eq!(signals(&probes)[2].exactness, Exactness::ExactByPoll);
    }
}
