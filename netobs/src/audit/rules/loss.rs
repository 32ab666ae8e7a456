//! Recovery from loss and the size of the window: SACK, D-SACK, window scaling.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::Subject;

const SACK: &str = "net.ipv4.tcp_sack";
const DSACK: &str = "net.ipv4.tcp_dsack";
const SCALING: &str = "net.ipv4.tcp_window_scaling";

pub(super) static RULES: &[&Rule] = &[&SACK_OFF, &SCALING_OFF, &DSACK_OFF];

static SACK_OFF: Rule = Rule {
    id: "NETOBS-TCP-055",
    title: "Selective acknowledgement is off",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[SACK],
    doc: Doc {
        checks: "tcp_sack is 0.",
        why: "Without SACK a sender learns of one lost segment per round trip, and RACK cannot work: two losses in a window often end in a retransmission timeout. It was turned off in 2019 against SACK panic (CVE-2019-11477), which every kernel since has mended.",
        evidence: "TcpExt.TCPRenoRecovery, TCPRenoFailures or TCPTimeouts moving in the window.",
        suggestion: "Set it to 1.",
        ignore: "A kernel from before June 2019 that cannot be replaced.",
        sources: &[
            IP_SYSCTL,
            "https://www.rfc-editor.org/rfc/rfc2018",
            "net/ipv4/tcp_output.c: tcp_syn_options()",
        ],
    },
    check: sack_off,
};

fn sack_off(s: &Subject<'_>) -> Verdict {
    if s.int(SACK)? != 0 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Warning,
            SACK,
            "a sender learns of one lost segment per round trip; several losses end in a timeout",
        )
        .wanted("1, as in every kernel")
        .set("1")
        .with(s.counters(&[
            "TcpExt.TCPRenoRecovery",
            "TcpExt.TCPRenoFailures",
            "TcpExt.TCPTimeouts",
        ])),
    ])
}

static SCALING_OFF: Rule = Rule {
    id: "NETOBS-TCP-056",
    title: "Window scaling is off",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[SCALING],
    doc: Doc {
        checks: "tcp_window_scaling is 0.",
        why: "No window can be larger than 64 KiB: at 50 ms of round trip a connection moves 1.3 MB/s at most, whatever the link.",
        evidence: "Established connections without window scaling; the largest product of rate and round trip is shown beside it.",
        suggestion: "Set it to 1.",
        ignore: "Never; devices that break window scaling have been gone for long.",
        sources: &[
            IP_SYSCTL,
            "https://www.rfc-editor.org/rfc/rfc7323",
            "net/ipv4/tcp_output.c: tcp_select_initial_window()",
        ],
    },
    check: scaling_off,
};

fn scaling_off(s: &Subject<'_>) -> Verdict {
    if s.int(SCALING)? != 0 {
        return Ok(vec![]);
    }
    let facts = s.ns.sockets.as_ref().filter(|k| k.established.without_window_scaling > 0).map(|k| {
        let e = k.established;
        Evidence::seen(
            "sock_diag",
            format!("{} of {} established connections have no window scaling; largest rate times round trip {} bytes", e.without_window_scaling, e.count, e.largest_bdp_bytes),
        )
    });
    Ok(vec![
        Problem::new(
            Severity::Warning,
            SCALING,
            "no window can be larger than 64 KiB",
        )
        .wanted("1, as in every kernel")
        .set("1")
        .with(facts),
    ])
}

static DSACK_OFF: Rule = Rule {
    id: "NETOBS-TCP-057",
    title: "Duplicate SACK is off",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[DSACK, SACK],
    doc: Doc {
        checks: "tcp_dsack is 0 while tcp_sack is on.",
        why: "D-SACK tells the sender that a retransmission was needless, so that it can undo its slow-down and learn the path's reordering. Without it every reordering costs speed. It concerns what this side tells its peers.",
        evidence: "TcpExt.TCPOFOQueue moving in the window: segments arrive out of order.",
        suggestion: "Set it to 1.",
        ignore: "The path never reorders.",
        sources: &[IP_SYSCTL, "https://www.rfc-editor.org/rfc/rfc2883"],
    },
    check: dsack_off,
};

fn dsack_off(s: &Subject<'_>) -> Verdict {
    if s.int(DSACK)? != 0 || s.maybe_int(SACK) == Some(0) {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Info,
            DSACK,
            "peers are not told that a retransmission was needless",
        )
        .wanted("1, as in every kernel")
        .set("1")
        .with(s.counters(&["TcpExt.TCPOFOQueue"])),
    ])
}

#[cfg(test)]
mod tests {
    use super::{DSACK, SACK, SCALING};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};

    #[test]
    fn each_switch() {
        let timeouts = [("TcpExt.TCPTimeouts", 3), ("TcpExt.TCPOFOQueue", 3)];
        for (id, key, severity) in [
            ("055", SACK, Warning),
            ("056", SCALING, Warning),
            ("057", DSACK, Info),
        ] {
            assert_eq!(Fixture::new(&[(key, "1")]).ask(id), Said::Pass);
            assert_eq!(Fixture::new(&[(key, "0")]).ask(id), found(severity, Advice));
            assert_eq!(Fixture::new(&[]).ask(id), Said::NotApplicable);
        }
        assert_eq!(
            Fixture::new(&[(SACK, "0")]).moved(&timeouts).ask("055"),
            found(Warning, Evidence)
        );
        let both = Fixture::new(&[(SACK, "0"), (DSACK, "0")]);
        assert_eq!(both.ask("057"), Said::Pass);
        let small = Fixture::new(&[(SCALING, "0")])
            .sockets(|s| (s.established.count, s.established.without_window_scaling) = (4, 1));
        assert_eq!(small.ask("056"), found(Warning, Evidence));
    }
}
