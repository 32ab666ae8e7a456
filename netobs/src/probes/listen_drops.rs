//! The functions that drop connections for a listener, and the choice between three ways to count.

use netobs_common::{
    offsets::Offset::{
        self, ArrayPerCpu, MibCounters, NetInum, NetStatistics, SkAckBacklog, SkFamily, SkListener,
        SkLocalAddress, SkLocalAddress6, SkLocalPort, SkMaxAckBacklog, SkNet, SkRemoteAddress,
        SkRemoteAddress6, SkRemotePort, SkbHead, SkbNetworkHeader, SkbTransportHeader,
    },
    probe::Program,
};

use super::{Attaching, KernelFacts, Method, Probe, ProbeStatus, Requirement, kfree_skb};
use crate::bpf::Attachment;

/// How listen drops are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenMethod {
    /// Each drop, by the difference that one packet makes to the kernel's own counters.
    Differential {
        /// `fentry` or `kprobe`.
        by: &'static str,
        /// Whether nothing can slip through.
        exact: bool,
    },
    /// `sk_drops` less the packets that `kfree_skb` shows, by looking.
    Identity,
    /// `sk_drops` alone, held below what the namespace's counter allows.
    Bounded,
}

/// What the counters and the events of drops are read by.
const OFFSETS: [Offset; 18] = [
    SkNet,
    NetStatistics,
    MibCounters,
    ArrayPerCpu,
    SkListener,
    NetInum,
    SkFamily,
    SkLocalPort,
    SkRemotePort,
    SkLocalAddress,
    SkRemoteAddress,
    SkLocalAddress6,
    SkRemoteAddress6,
    SkAckBacklog,
    SkMaxAckBacklog,
    SkbHead,
    SkbNetworkHeader,
    SkbTransportHeader,
];

macro_rules! probe {
    ($name:ident, $counts:ident, $function:literal, $observes:literal:
     $entry:literal $exit:literal $kprobe:literal $kretprobe:literal) => {
        /// The probe.
        pub(super) static $name: Probe = Probe {
            name: $function,
            observes: $observes,
            cost: "two reads of the kernel's counters at entry and at exit",
            without: "listen drops are counted by looking, ten times a second, or as a lower bound",
            requires: None,
            unless: None,
            optional: false,
            methods: &[
                Method {
                    counts: Program::$counts,
                    // Exit first: an entry without its exit would leave a stale frame.
                    programs: &[
                        (
                            $exit,
                            Attachment::Fexit {
                                function: $function,
                            },
                        ),
                        (
                            $entry,
                            Attachment::Fentry {
                                function: $function,
                            },
                        ),
                    ],
                    offsets: &OFFSETS,
                    also: Requirement::LISTEN_COUNTERS,
                },
                Method {
                    counts: Program::$counts,
                    programs: &[
                        (
                            $kretprobe,
                            Attachment::Kprobe {
                                function: $function,
                            },
                        ),
                        (
                            $kprobe,
                            Attachment::Kprobe {
                                function: $function,
                            },
                        ),
                    ],
                    offsets: &OFFSETS,
                    also: Requirement::LISTEN_COUNTERS,
                },
            ],
        };
    };
}

probe!(TCP_V4_CONN_REQUEST, TcpV4ConnRequest, "tcp_v4_conn_request", "SYNs for IPv4 listeners":
    "v4_conn_entry" "v4_conn_exit" "v4_conn_kprobe" "v4_conn_kret");
probe!(TCP_V6_CONN_REQUEST, TcpV6ConnRequest, "tcp_v6_conn_request", "SYNs for IPv6 listeners":
    "v6_conn_entry" "v6_conn_exit" "v6_conn_kprobe" "v6_conn_kret");
probe!(SUBFLOW_V4_CONN_REQUEST, SubflowV4ConnRequest, "subflow_v4_conn_request",
    "SYNs for MPTCP listeners over IPv4":
    "sub4_conn_entry" "sub4_conn_exit" "sub4_conn_kprobe" "sub4_conn_kret");
probe!(SUBFLOW_V6_CONN_REQUEST, SubflowV6ConnRequest, "subflow_v6_conn_request",
    "SYNs for MPTCP listeners over IPv6":
    "sub6_conn_entry" "sub6_conn_exit" "sub6_conn_kprobe" "sub6_conn_kret");
probe!(TCP_CHECK_REQ, TcpCheckReq, "tcp_check_req", "packets for requests in the SYN queue":
    "check_req_entry" "check_req_exit" "check_req_kprobe" "check_req_kret");
probe!(COOKIE_V4_CHECK, CookieV4Check, "cookie_v4_check", "final ACKs of SYN cookies over IPv4":
    "cookie4_entry" "cookie4_exit" "cookie4_kprobe" "cookie4_kret");
probe!(COOKIE_V6_CHECK, CookieV6Check, "cookie_v6_check", "final ACKs of SYN cookies over IPv6":
    "cookie6_entry" "cookie6_exit" "cookie6_kprobe" "cookie6_kret");
probe!(TCP_REQ_ERR, TcpReqErr, "tcp_req_err", "ICMP errors for requests in the SYN queue":
    "req_err_entry" "req_err_exit" "req_err_kprobe" "req_err_kret");

/// Together they enclose every place that raises ListenDrops.
static FUNCTIONS: [&Probe; 8] = [
    &TCP_V4_CONN_REQUEST,
    &TCP_V6_CONN_REQUEST,
    &SUBFLOW_V4_CONN_REQUEST,
    &SUBFLOW_V6_CONN_REQUEST,
    &TCP_CHECK_REQ,
    &COOKIE_V4_CHECK,
    &COOKIE_V6_CHECK,
    &TCP_REQ_ERR,
];

/// Those that every kernel has, or that has what is named beside it: without type information they
/// cannot be watched, but packets pass through them all the same. (Of the others, whose addresses the
/// kernel takes, there is none where there is no type information.)
pub(super) const PRESENT: [(&str, Option<&str>); 5] = [
    ("tcp_v4_conn_request", None),
    ("tcp_check_req", None),
    ("tcp_req_err", None),
    ("cookie_v4_check", Some("__cookie_v4_check")),
    ("cookie_v6_check", Some("__cookie_v6_check")),
];

/// Whether no packet passes through a function, since this kernel has none of that name.
fn is_absent(name: &str, facts: &KernelFacts) -> bool {
    let has = |name: &str| facts.has_function(name);
    has(name) == Some(false)
        && !PRESENT.iter().any(|(present, with)| {
            *present == name && with.is_none_or(|with| has(with) == Some(true))
        })
}

/// Whether a probe is one of those.
pub(super) fn counts(probe: &str) -> bool {
    FUNCTIONS.iter().any(|function| function.name == probe)
}

/// Index of the method in each probe of [`FUNCTIONS`].
const FENTRY: usize = 0;
const KPROBE: usize = 1;

/// Attaches the best way that this kernel offers: fentry on all functions, else `kfree_skb`, else
/// kprobes. Returns the status of every probe that takes part in the choice.
pub(super) fn attach(attaching: &mut Attaching<'_>) -> (Vec<ProbeStatus>, ListenMethod) {
    let mut statuses = functions(attaching, FENTRY);
    if all_watch(&statuses) {
        let spare = "not needed: listen drops are counted where they happen";
        statuses.push(ProbeStatus::new(&kfree_skb::PROBE).spare(spare));
        let exact = !attaching.facts.is_realtime();
        return (
            statuses,
            ListenMethod::Differential {
                by: "fentry",
                exact,
            },
        );
    }
    release(attaching, FENTRY);
    let kfree_skb = attaching.best(&kfree_skb::PROBE);
    if kfree_skb.attached {
        // As exact, by looking: nothing that the user must mend.
        statuses = statuses
            .into_iter()
            .map(|mut status| {
                (status.wanted, status.without) = (false, None);
                unused(status)
            })
            .collect();
        statuses.push(kfree_skb);
        return (statuses, ListenMethod::Identity);
    }
    let by_kprobe = functions(attaching, KPROBE);
    if all_watch(&by_kprobe) {
        let mut by_kprobe: Vec<_> = by_kprobe
            .into_iter()
            .zip(statuses)
            .map(|(mut status, fentry)| {
                // What kept the better method away is worth knowing.
                status.reasons.splice(..0, fentry.reasons);
                status
            })
            .collect();
        by_kprobe.push(kfree_skb);
        return (
            by_kprobe,
            ListenMethod::Differential {
                by: "kprobe",
                exact: false,
            },
        );
    }
    release(attaching, KPROBE);
    statuses = statuses.into_iter().map(unused).collect();
    statuses.push(kfree_skb);
    (statuses, ListenMethod::Bounded)
}

/// Tries one method on every function. One that this kernel does not have is no failure: no packet
/// passes through it.
fn functions(attaching: &mut Attaching<'_>, method: usize) -> Vec<ProbeStatus> {
    let mut statuses = Vec::new();
    let mut hopeless = None;
    for probe in FUNCTIONS {
        let mut status = ProbeStatus::new(probe);
        if !attaching.selection.wants(probe.name) {
            status = status.spare("switched off by the configuration");
        } else if is_absent(probe.name, attaching.facts) {
            status = status.spare("this kernel has no such function");
        } else if let (None, Some(method)) = (&hopeless, probe.methods.get(method)) {
            match attaching.attach(method) {
                Ok(()) => status.run(method),
                Err(failure) => {
                    // All or none, and they fail alike: spare the kernel the other attempts.
                    hopeless = Some(failure.clone());
                    status.reasons.push(failure);
                }
            }
        } else {
            status.reasons.extend(hopeless.clone());
        }
        statuses.push(status);
    }
    statuses
}

fn all_watch(statuses: &[ProbeStatus]) -> bool {
    let off = |status: &&ProbeStatus| {
        !status.attached
            && (status.wanted
                || status
                    .reasons
                    .iter()
                    .any(|failure| failure.reason.starts_with("switched off")))
    };
    !statuses.iter().any(|status| off(&status))
}

fn release(attaching: &mut Attaching<'_>, method: usize) {
    for probe in FUNCTIONS {
        if let Some(method) = probe.methods.get(method) {
            attaching.detach(method);
        }
    }
}

/// A probe of a set that another one of it kept from being used.
fn unused(mut status: ProbeStatus) -> ProbeStatus {
    status.attached = false;
    status.running = None;
    status
}
