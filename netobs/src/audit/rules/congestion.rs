//! The sender's pace: congestion control, ECN, path MTU, idle restarts.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::kernel::Version;
use crate::audit::subject::Subject;

const CONTROL: &str = "net.ipv4.tcp_congestion_control";
const QDISC: &str = "net.core.default_qdisc";
const IDLE: &str = "net.ipv4.tcp_slow_start_after_idle";
const PROBING: &str = "net.ipv4.tcp_mtu_probing";
const ECN: &str = "net.ipv4.tcp_ecn";
const FALLBACK: &str = "net.ipv4.tcp_ecn_fallback";
const CHALLENGE: &str = "net.ipv4.tcp_challenge_ack_limit";
const L3MDEV: &str = "net.ipv4.tcp_l3mdev_accept";

pub(super) static RULES: &[&Rule] = &[
    &BBR_WITHOUT_PACING,
    &ECN_ASKED,
    &ECN_UNKNOWN,
    &MTU,
    &AFTER_IDLE,
    &CHALLENGE_ACKS,
    &VRF,
];

static BBR_WITHOUT_PACING: Rule = Rule {
    id: "NETOBS-TCP-080",
    title: "BBR without a queue that paces",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[CONTROL, QDISC],
    doc: Doc {
        checks: "tcp_congestion_control is bbr on a kernel before 4.13 while net.core.default_qdisc is not fq.",
        why: "BBR needs its packets spaced out. Before 4.13 only the fq queue did that; without it BBR sends bursts, and fills the queues it is meant to avoid. Since 4.13 TCP paces by itself. The default queue concerns interfaces made later, so it may not be what an interface has.",
        evidence: "None: nothing counts it. Always advice.",
        suggestion: "Set net.core.default_qdisc to fq on the node, or use a newer kernel.",
        ignore: "The interfaces have fq although the default is another.",
        sources: &[
            IP_SYSCTL,
            "218af599fa63 (4.13: pacing in TCP)",
            "net/ipv4/tcp_bbr.c",
        ],
    },
    check: bbr_without_pacing,
};

fn bbr_without_pacing(s: &Subject<'_>) -> Verdict {
    let control = s.text(CONTROL)?;
    if !control.starts_with("bbr") || !s.machine.kernel.older_than(Version(4, 13)) {
        return Ok(vec![]);
    }
    let qdisc = s.text(QDISC)?;
    if qdisc == "fq" {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(Severity::Warning, QDISC, format!("{control} sends bursts: this kernel paces only with fq, and the default queue is {qdisc}"))
            .wanted("fq, or a kernel from 4.13 on")
            .set("fq"),
    ])
}

static ECN_ASKED: Rule = Rule {
    id: "NETOBS-TCP-081",
    title: "ECN is asked for on every outgoing connection",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[ECN, FALLBACK],
    doc: Doc {
        checks: "tcp_ecn is 1 (or 3 or 4, which ask for AccECN or ECN from 6.18 on).",
        why: "Some middle boxes drop SYNs that ask for ECN. With tcp_ecn_fallback the retry goes without, a second or more later; without it the connection fails.",
        evidence: "TcpExt.TCPSynRetrans moving in the window: SYNs go unanswered, for this or another reason.",
        suggestion: "Keep 2 (accept it, do not ask) unless the path is known, and keep tcp_ecn_fallback at 1.",
        ignore: "A data centre that marks packets (DCTCP), where ECN is wanted.",
        sources: &[
            IP_SYSCTL,
            "https://www.rfc-editor.org/rfc/rfc3168#section-6.1.1.1",
        ],
    },
    check: ecn_asked,
};

fn ecn_asked(s: &Subject<'_>) -> Verdict {
    if !matches!(s.int(ECN)?, 1 | 3 | 4) {
        return Ok(vec![]);
    }
    let no_fallback = s.maybe_int(FALLBACK) == Some(0);
    let facts = s.counters(&["TcpExt.TCPSynRetrans"]);
    let severity = if no_fallback || facts.iter().any(|f| f.live) {
        Severity::Warning
    } else {
        Severity::Info
    };
    let message = if no_fallback {
        "ECN is asked for and there is no fall-back: what drops such SYNs makes connections fail"
    } else {
        "ECN is asked for: what drops such SYNs delays the connection until the retry without"
    };
    Ok(vec![
        Problem::new(severity, ECN, message)
            .wanted("2, as in every kernel, unless the path is known")
            .set("2")
            .with(facts),
    ])
}

static ECN_UNKNOWN: Rule = Rule {
    id: "NETOBS-TCP-082",
    title: "An ECN mode that is not known here",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[ECN],
    doc: Doc {
        checks: "tcp_ecn is outside 0 to 5.",
        why: "Kernels grow new modes (3 to 5 came with AccECN in 6.18). One that this version of netobs does not know is shown and not judged.",
        evidence: "The value itself. Always advice.",
        suggestion: "Look it up in the documentation of the running kernel.",
        ignore: "The kernel is newer than this version of netobs.",
        sources: &[IP_SYSCTL],
    },
    check: ecn_unknown,
};

fn ecn_unknown(s: &Subject<'_>) -> Verdict {
    let value = s.int(ECN)?;
    if (0..=5).contains(&value) {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Info,
            ECN,
            format!("{value} is a mode that this version of netobs does not know"),
        )
        .wanted("0 to 5")
        .advise("see the running kernel's own documentation"),
    ])
}

static MTU: Rule = Rule {
    id: "NETOBS-TCP-083",
    title: "Path MTU black holes are not probed for",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[PROBING],
    doc: Doc {
        checks: "tcp_mtu_probing is 0 while connections stall (timeout after timeout with full-size segments and nothing acknowledged); or it is 2, which probes always.",
        why: "Where ICMP is filtered a sender never learns that its packets are too large: small requests work, large answers hang. With 1 the kernel tries smaller segments once it suspects that.",
        evidence: "Established connections that stall with full-size segments, seen now. For 2: TcpExt.TCPMTUPFail as context.",
        suggestion: "Set it to 1, and find the hop that filters ICMP or the tunnel with the smaller MTU.",
        ignore: "The stalled connections have a dead peer, not a black hole.",
        sources: &[
            IP_SYSCTL,
            "https://www.rfc-editor.org/rfc/rfc4821",
            "net/ipv4/tcp_timer.c: tcp_mtu_probing()",
        ],
    },
    check: mtu,
};

fn mtu(s: &Subject<'_>) -> Verdict {
    match s.int(PROBING)? {
        0 => {}
        2 => {
            return Ok(vec![
                Problem::new(
                    Severity::Info,
                    PROBING,
                    "every connection starts from a small segment size and probes upwards",
                )
                .wanted("0 or 1: probe only when a black hole is suspected")
                .set("1")
                .with(s.history(&["TcpExt.TCPMTUPFail", "TcpExt.TCPMTUPSuccess"])),
            ]);
        }
        _ => return Ok(vec![]),
    }
    let stalled = s.ns.sockets.as_ref().map_or(0, |k| k.established.stalled);
    if stalled == 0 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(Severity::Warning, PROBING, "connections stall with full-size segments, as in a path MTU black hole, and nothing probes for one")
            .wanted("1 where ICMP may be filtered")
            .set("1")
            .with([Evidence::seen("sock_diag", format!("{stalled} established connections time out again and again"))])
            .with(s.history(&["TcpExt.TCPTimeouts"])),
    ])
}

static AFTER_IDLE: Rule = Rule {
    id: "NETOBS-TCP-084",
    title: "Connections keep their pace over idle times",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[IDLE],
    doc: Doc {
        checks: "tcp_slow_start_after_idle is 0.",
        why: "With 1 a connection that was idle starts slowly again, which costs long-lived connections with pauses some round trips. With 0 it sends a whole window at once into a path it knows nothing new about; tuned's throughput profiles choose that.",
        evidence: "TcpExt.TCPLossProbes or TCPTimeouts do not tell the cause, so none. Always advice.",
        suggestion: "Either value can be right; 1 is the default and the cautious one.",
        ignore: "Long-lived connections between your own machines.",
        sources: &[IP_SYSCTL, "https://www.rfc-editor.org/rfc/rfc2861"],
    },
    check: after_idle,
};

fn after_idle(s: &Subject<'_>) -> Verdict {
    if s.int(IDLE)? != 0 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Info,
            IDLE,
            "after an idle time a whole window is sent at once",
        )
        .wanted("1, as in every kernel, unless chosen for long-lived connections")
        .set("1"),
    ])
}

static CHALLENGE_ACKS: Rule = Rule {
    id: "NETOBS-TCP-085",
    title: "Challenge ACKs are limited in a way that can be observed",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[CHALLENGE],
    doc: Doc {
        checks: "tcp_challenge_ack_limit is 100 or less.",
        why: "Such a small limit, shared by all connections, lets a stranger count challenge ACKs and so find out and break connections of others (CVE-2016-5696). It was 100, then 1000 with a random part, and is without limit since 6.1.",
        evidence: "TcpExt.TCPChallengeACK moving in the window, as context: it cannot be told from normal use.",
        suggestion: "Remove the setting; the default is right.",
        ignore: "Never.",
        sources: &[
            IP_SYSCTL,
            "https://nvd.nist.gov/vuln/detail/CVE-2016-5696",
            "net/ipv4/tcp_input.c: tcp_send_challenge_ack()",
        ],
    },
    check: challenge_acks,
};

fn challenge_acks(s: &Subject<'_>) -> Verdict {
    let value = s.int(CHALLENGE)?;
    if !(0..=100).contains(&value) {
        return Ok(vec![]);
    }
    let default = s
        .default_int(CHALLENGE)
        .filter(|d| *d > 100)
        .unwrap_or(1000);
    Ok(vec![
        Problem::new(Severity::Warning, CHALLENGE, format!("{value} challenge ACKs per second, shared by all connections, can be counted by strangers"))
            .wanted("the kernel's default")
            .set(default.to_string())
            .with(s.history(&["TcpExt.TCPChallengeACK"])),
    ])
}

static VRF: Rule = Rule {
    id: "NETOBS-TCP-086",
    title: "Listeners accept connections from every VRF",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[L3MDEV],
    doc: Doc {
        checks: "tcp_l3mdev_accept is 1.",
        why: "A listener that is bound to no device then answers in every VRF of the namespace, and the connection stays in the VRF it came from: services meant for one network can be reached from another.",
        evidence: "The number of listeners, as context. Always advice.",
        suggestion: "Keep 0 and bind each listener to its VRF, unless one listener should serve all.",
        ignore: "Routers whose daemons serve every VRF on purpose.",
        sources: &[IP_SYSCTL, "https://docs.kernel.org/networking/vrf.html"],
    },
    check: vrf,
};

fn vrf(s: &Subject<'_>) -> Verdict {
    if s.int(L3MDEV)? == 0 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Info,
            L3MDEV,
            "listeners that are bound to no device answer in every VRF",
        )
        .wanted("0, as in every kernel")
        .set("0")
        .with([Evidence::context(
            "sock_diag",
            format!("{} listeners", s.listeners().len()),
        )]),
    ])
}

#[cfg(test)]
mod tests {
    use super::{CHALLENGE, CONTROL, ECN, FALLBACK, IDLE, L3MDEV, PROBING, QDISC};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};

    #[test]
    fn bbr_paces_itself_since_4_13() {
        let with = |c, q, k| Fixture::new(&[(CONTROL, c), (QDISC, q)]).kernel(k);
        assert_eq!(
            with("bbr", "pfifo_fast", "4.9.1").ask("080"),
            found(Warning, Advice)
        );
        assert_eq!(with("bbr", "fq", "4.9.1").ask("080"), Said::Pass);
        assert_eq!(with("bbr", "pfifo_fast", "4.13.0").ask("080"), Said::Pass);
        assert_eq!(with("cubic", "pfifo_fast", "4.9.1").ask("080"), Said::Pass);
        assert_eq!(with("bbr", "pfifo_fast", "?").ask("080"), Said::Pass);
    }

    #[test]
    fn every_ecn_mode_has_its_verdict() {
        for (mode, asked, unknown) in [
            ("0", Said::Pass, Said::Pass),
            ("1", found(Info, Advice), Said::Pass),
            ("2", Said::Pass, Said::Pass),
            ("3", found(Info, Advice), Said::Pass),
            ("5", Said::Pass, Said::Pass),
            ("6", Said::Pass, found(Info, Advice)),
        ] {
            let f = Fixture::new(&[(ECN, mode)]);
            assert_eq!((f.ask("081"), f.ask("082")), (asked, unknown), "{mode}");
        }
        let bare = Fixture::new(&[(ECN, "1"), (FALLBACK, "0")]);
        assert_eq!(bare.ask("081"), found(Warning, Advice));
        let lost = Fixture::new(&[(ECN, "1")]).moved(&[("TcpExt.TCPSynRetrans", 1)]);
        assert_eq!(lost.ask("081"), found(Warning, Evidence));
    }

    #[test]
    fn black_holes_need_stalled_connections() {
        let with = |v| Fixture::new(&[(PROBING, v)]);
        assert_eq!(with("0").ask("083"), Said::Pass);
        assert_eq!(with("1").ask("083"), Said::Pass);
        assert_eq!(with("2").ask("083"), found(Info, Advice));
        let stuck = with("0").sockets(|s| s.established.stalled = 1);
        assert_eq!(stuck.ask("083"), found(Warning, Evidence));
    }

    #[test]
    fn the_rest() {
        assert_eq!(Fixture::new(&[(IDLE, "0")]).ask("084"), found(Info, Advice));
        assert_eq!(Fixture::new(&[(IDLE, "1")]).ask("084"), Said::Pass);
        assert_eq!(
            Fixture::new(&[(CHALLENGE, "100")]).ask("085"),
            found(Warning, Advice)
        );
        assert_eq!(Fixture::new(&[(CHALLENGE, "1000")]).ask("085"), Said::Pass);
        assert_eq!(
            Fixture::new(&[(L3MDEV, "1")]).ask("086"),
            found(Info, Advice)
        );
        assert_eq!(Fixture::new(&[(L3MDEV, "0")]).ask("086"), Said::Pass);
    }
}
