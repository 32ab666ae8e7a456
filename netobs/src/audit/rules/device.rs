//! Below TCP: the per-CPU backlog, the polling budget, the neighbour table.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::{Skip, Subject};

const BACKLOG: &str = "net.core.netdev_max_backlog";
const BUDGET: &str = "net.core.netdev_budget";
const NEIGH_SOFT: &str = "net.ipv4.neigh.default.gc_thresh1";
const NEIGH: &str = "net.ipv4.neigh.default.gc_thresh3";
const NET: &str = "https://docs.kernel.org/admin-guide/sysctl/net.html";

pub(super) static RULES: &[&Rule] = &[&BACKLOG_DROPS, &SQUEEZED, &NEIGHBOURS];

static BACKLOG_DROPS: Rule = Rule {
    id: "NETOBS-TCP-095",
    title: "A CPU's packet backlog overflows",
    applies: Applies::Node,
    severity: Severity::Critical,
    keys: &[BACKLOG],
    doc: Doc {
        checks: "Packets were dropped because a CPU's backlog (netdev_max_backlog) was full.",
        why: "Packets from loopback, veth pairs and RPS wait in a queue per CPU. When it is full they are dropped before TCP sees them: the sender notices a loss, nothing in the namespace does.",
        evidence: "The second column of /proc/net/softnet_stat moving in the window. Without a window old drops are shown and are advice.",
        suggestion: "Raise it with care (a longer queue is a longer delay), spread the load over CPUs, and see what keeps the CPU busy.",
        ignore: "A single burst at start-up.",
        sources: &[NET, "net/core/dev.c: enqueue_to_backlog()"],
    },
    check: backlog_drops,
};

fn backlog_drops(s: &Subject<'_>) -> Verdict {
    let limit = s.int(BACKLOG)?;
    let Some(stat) = s.ns.softnet else {
        return Err(Skip::NotApplicable(
            "the CPUs' counters could not be read".to_owned(),
        ));
    };
    if stat.dropped == 0 {
        return Ok(vec![]);
    }
    let live = stat.dropped_delta.is_some_and(|d| d > 0);
    let mut fact = Evidence::context(
        "/proc/net/softnet_stat",
        match stat.dropped_delta {
            Some(delta) => format!(
                "{} packets dropped since boot, {delta} in the window",
                stat.dropped
            ),
            None => format!("{} packets dropped since boot", stat.dropped),
        },
    );
    fact.live = live;
    fact.delta = stat.dropped_delta;
    fact.total = Some(stat.dropped);
    Ok(vec![
        Problem::new(
            if live {
                Severity::Critical
            } else {
                Severity::Info
            },
            BACKLOG,
            "packets were dropped before TCP saw them, because a CPU's backlog was full",
        )
        .wanted("no drops")
        .set(limit.saturating_mul(2).to_string())
        .with([fact]),
    ])
}

static SQUEEZED: Rule = Rule {
    id: "NETOBS-TCP-096",
    title: "CPUs run out of their packet budget",
    applies: Applies::Node,
    severity: Severity::Info,
    keys: &[BUDGET],
    doc: Doc {
        checks: "In the window a CPU stopped polling with packets left (time squeeze) a hundred times or more.",
        why: "The rest waits for the next round. It is harmless now and then; all the time it means delay, and ring buffers of network cards that overflow.",
        evidence: "The third column of /proc/net/softnet_stat in the window. Never said without.",
        suggestion: "Raise netdev_budget and netdev_budget_usecs together, or spread interrupts over more CPUs.",
        ignore: "No packets are lost and latency is no concern.",
        sources: &[NET, "net/core/dev.c: net_rx_action()"],
    },
    check: squeezed,
};

fn squeezed(s: &Subject<'_>) -> Verdict {
    let budget = s.int(BUDGET)?;
    let squeezes =
        s.ns.softnet
            .and_then(|stat| stat.squeezed_delta)
            .unwrap_or(0);
    if squeezes < 100 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Info,
            BUDGET,
            "CPUs stop polling with packets left",
        )
        .wanted("fewer than 100 squeezes in the window")
        .set(budget.saturating_mul(2).to_string())
        .with([Evidence::seen(
            "/proc/net/softnet_stat",
            format!("{squeezes} time squeezes in the window"),
        )]),
    ])
}

static NEIGHBOURS: Rule = Rule {
    id: "NETOBS-TCP-097",
    title: "The neighbour table is nearly full",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[NEIGH, NEIGH_SOFT],
    doc: Doc {
        checks: "The IPv4 neighbour entries of the namespace reach 80 % of gc_thresh3, which holds for the whole node.",
        why: "When the table is full no new neighbour can be resolved: connections to machines on the same link fail with ENOBUFS or time out (\"neighbour: arp_cache: neighbor table overflow!\"). The limit counts the entries of all namespaces together.",
        evidence: "The namespace's entries now.",
        suggestion: "Raise gc_thresh3, with gc_thresh2 at half of it, on the node.",
        ignore: "Never above 80 %.",
        sources: &[IP_SYSCTL, "net/core/neighbour.c: neigh_alloc()"],
    },
    check: neighbours,
};

fn neighbours(s: &Subject<'_>) -> Verdict {
    let limit = s.int(NEIGH)?;
    let here = s.ns.neighbours.unwrap_or(0);
    // The table is the node's: other namespaces fill it as well.
    let all: u64 = if s.ns.host {
        here + s
            .machine
            .others
            .iter()
            .filter_map(|ns| ns.neighbours)
            .sum::<u64>()
    } else {
        here
    };
    let all = i64::try_from(all).unwrap_or(i64::MAX);
    if limit <= 0 || all.saturating_mul(10) < limit.saturating_mul(8) {
        return Ok(vec![]);
    }
    let severity = if all.saturating_mul(20) >= limit.saturating_mul(19) {
        Severity::Critical
    } else {
        Severity::Warning
    };
    Ok(vec![
        Problem::new(
            severity,
            NEIGH,
            format!("{all} neighbour entries of {limit}"),
        )
        .wanted("less than 80 % in use")
        .set(limit.saturating_mul(4).to_string())
        .with([Evidence::seen(
            "/proc/net/arp",
            format!("{here} entries in this namespace"),
        )]),
    ])
}

#[cfg(test)]
mod tests {
    use super::{BACKLOG, BUDGET, NEIGH};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Critical, Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};
    use crate::audit::snapshot::Softnet;

    #[test]
    fn softnet_counters() {
        let with = |dropped, dropped_delta, squeezed_delta| {
            Fixture::new(&[(BACKLOG, "1000"), (BUDGET, "300")]).host(|ns| {
                ns.softnet = Some(Softnet {
                    dropped,
                    squeezed: 0,
                    dropped_delta,
                    squeezed_delta,
                });
            })
        };
        assert_eq!(with(0, Some(0), Some(0)).ask("095"), Said::Pass);
        assert_eq!(with(9, None, None).ask("095"), found(Info, Advice));
        assert_eq!(with(9, Some(0), None).ask("095"), found(Info, Advice));
        assert_eq!(with(9, Some(2), None).ask("095"), found(Critical, Evidence));
        assert_eq!(with(0, None, Some(99)).ask("096"), Said::Pass);
        assert_eq!(with(0, None, Some(100)).ask("096"), found(Info, Evidence));
        assert_eq!(
            Fixture::new(&[(BACKLOG, "1")]).ask("095"),
            Said::NotApplicable
        );
    }

    #[test]
    fn neighbour_tables() {
        let with = |n| Fixture::new(&[(NEIGH, "1000")]).host(|ns| ns.neighbours = Some(n));
        assert_eq!(with(799).ask("097"), Said::Pass);
        assert_eq!(with(800).ask("097"), found(Warning, Evidence));
        assert_eq!(with(950).ask("097"), found(Critical, Evidence));
    }
}
