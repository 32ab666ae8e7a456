//! Connection tracking: how full its table is.

use super::{Applies, Doc, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::Subject;

const MAX: &str = "net.netfilter.nf_conntrack_max";
const COUNT: &str = "net.netfilter.nf_conntrack_count";
const LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";
const DOCS: &str = "https://docs.kernel.org/networking/nf_conntrack-sysctl.html";
const REFUSED: [&str; 3] = [
    "conntrack.drop",
    "conntrack.early_drop",
    "conntrack.insert_failed",
];

pub(super) static RULES: &[&Rule] = &[&NEARLY_FULL, &REFUSING, &LIBERAL_WINDOW];

static NEARLY_FULL: Rule = Rule {
    id: "NETOBS-TCP-090",
    title: "The connection tracking table is nearly full",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[COUNT, MAX],
    doc: Doc {
        checks: "nf_conntrack_count of this namespace is above 75 % of nf_conntrack_max.",
        why: "When the table is full, packets of new connections are dropped (\"nf_conntrack: table full, dropping packet\"). The limit is the node's, the count is the namespace's: each namespace may have that many.",
        evidence: "The two numbers now; conntrack drop and early_drop moving in the window.",
        suggestion: "Raise nf_conntrack_max on the node (each entry takes some 320 bytes), shorten nf_conntrack_tcp_timeout_established, or exempt traffic that needs no tracking.",
        ignore: "A firewall sized for exactly this load.",
        sources: &[
            DOCS,
            "net/netfilter/nf_conntrack_core.c: __nf_conntrack_alloc()",
        ],
    },
    check: nearly_full,
};

fn nearly_full(s: &Subject<'_>) -> Verdict {
    let count = s.int(COUNT)?;
    let max = s.int(MAX)?;
    // 0 means no limit.
    if max <= 0 || count.saturating_mul(4) <= max.saturating_mul(3) {
        return Ok(vec![]);
    }
    let refused = s.counters(&REFUSED[..2]);
    let near = count.saturating_mul(100) >= max.saturating_mul(95);
    let severity = if near || refused.iter().any(|f| f.live) {
        Severity::Critical
    } else {
        Severity::Warning
    };
    Ok(vec![
        Problem::new(
            severity,
            MAX,
            format!("{count} of {max} tracked connections; a full table drops new ones"),
        )
        .wanted("less than 75 % in use")
        .set(max.saturating_mul(2).to_string())
        .with([Evidence::seen(
            "nf_conntrack",
            format!("{} % of the table in use", count.saturating_mul(100) / max),
        )])
        .with(refused),
    ])
}

static REFUSING: Rule = Rule {
    id: "NETOBS-TCP-091",
    title: "Connection tracking refuses entries",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[MAX, COUNT],
    doc: Doc {
        checks: "conntrack drop, early_drop or insert_failed moved in the window.",
        why: "drop and early_drop come from a full table. insert_failed means that two packets wanted the same entry: common with parallel DNS look-ups through NAT, and each one is a packet lost and a wait for the client.",
        evidence: "The counters of /proc/net/stat/nf_conntrack in the window. Never said without.",
        suggestion: "For drops, see NETOBS-TCP-090. For insert_failed, avoid NAT for DNS (a local cache), or randomize source ports fully.",
        ignore: "Never; each is a lost packet.",
        sources: &[
            DOCS,
            "net/netfilter/nf_conntrack_core.c: __nf_conntrack_confirm()",
        ],
    },
    check: refusing,
};

fn refusing(s: &Subject<'_>) -> Verdict {
    let max = s.int(MAX)?;
    let facts = s.counters(&REFUSED);
    if !facts.iter().any(|f| f.live) {
        return Ok(vec![]);
    }
    let full = s.moved(REFUSED[0]) || s.moved(REFUSED[1]);
    let problem = if full {
        Problem::new(
            Severity::Critical,
            MAX,
            "the table was full during the audit: packets of new connections were dropped",
        )
        .wanted("no drops")
        .set(max.saturating_mul(2).max(1).to_string())
    } else {
        Problem::new(
            Severity::Warning,
            COUNT,
            "entries collide while they are inserted, and each time a packet is lost",
        )
        .wanted("no failed insertions")
        .advise("avoid NAT for DNS, or let NAT choose source ports fully at random")
    };
    Ok(vec![problem.with(facts)])
}

static LIBERAL_WINDOW: Rule = Rule {
    id: "NETOBS-TCP-092",
    title: "Segments outside the window are called invalid",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[LIBERAL],
    doc: Doc {
        checks: "nf_conntrack_tcp_be_liberal is 0 and conntrack counted invalid packets in the window.",
        why: "The tracker calls a segment invalid when it lies outside the window it expects. NAT then does not translate it: it reaches the peer with the wrong address, is answered with a reset, and an honest connection breaks.",
        evidence: "conntrack invalid moving in the window. Never said without.",
        suggestion: "Drop invalid packets before they leave (which kube-proxy does), or set it to 1.",
        ignore: "The invalid packets come from scans.",
        sources: &[
            DOCS,
            "https://kubernetes.io/blog/2019/03/29/kube-proxy-subtleties-debugging-an-intermittent-connection-reset/",
        ],
    },
    check: liberal_window,
};

fn liberal_window(s: &Subject<'_>) -> Verdict {
    if s.int(LIBERAL)? != 0 || !s.moved("conntrack.invalid") {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Warning,
            LIBERAL,
            "packets are called invalid; behind NAT they lead to resets of honest connections",
        )
        .wanted("no invalid packets, or 1 together with NAT")
        .set("1")
        .with(s.counters(&["conntrack.invalid"])),
    ])
}

#[cfg(test)]
mod tests {
    use super::{COUNT, LIBERAL, MAX};
    use crate::audit::finding::Basis::Evidence;
    use crate::audit::finding::Severity::{Critical, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};

    #[test]
    fn fullness_and_refusals() {
        let with = |count| Fixture::new(&[(COUNT, count), (MAX, "1000")]);
        assert_eq!(with("750").ask("090"), Said::Pass);
        assert_eq!(with("751").ask("090"), found(Warning, Evidence));
        assert_eq!(with("950").ask("090"), found(Critical, Evidence));
        let dropping = with("800").moved(&[("conntrack.drop", 1)]);
        assert_eq!(dropping.ask("090"), found(Critical, Evidence));
        assert_eq!(dropping.ask("091"), found(Critical, Evidence));
        let colliding = with("1").moved(&[("conntrack.insert_failed", 1)]);
        assert_eq!(colliding.ask("091"), found(Warning, Evidence));
        assert_eq!(
            with("1").totals(&[("conntrack.drop", 1)]).ask("091"),
            Said::Pass
        );
        assert_eq!(
            Fixture::new(&[(COUNT, "9"), (MAX, "0")]).ask("090"),
            Said::Pass
        );
        assert_eq!(Fixture::new(&[]).ask("090"), Said::NotApplicable);
        let strict = Fixture::new(&[(LIBERAL, "0")]).moved(&[("conntrack.invalid", 2)]);
        assert_eq!(strict.ask("092"), found(Warning, Evidence));
        assert_eq!(Fixture::new(&[(LIBERAL, "0")]).ask("092"), Said::Pass);
    }

    #[test]
    fn a_namespace_without_the_module_is_not_judged() {
        let f = Fixture::new(&[(MAX, "1000")]).other(&[]);
        assert_eq!(f.ask("090"), Said::NotApplicable);
    }
}
