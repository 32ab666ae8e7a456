//! A connection tracking table that is full drops packets that no TCP counter tells of.

use super::{Rule, Sight, needs_the_kernel};
use crate::{
    audit::finding::Severity,
    diagnose::{Conntrack, Evidence, Finding},
};

pub(super) const RULE: Rule = Rule {
    id: "conntrack",
    looks_at: "room in the connection tracking table of each network namespace",
    sight,
    judge,
};

/// From here on the next burst may fill it.
const NEARLY_PERCENT: u64 = 90;

fn sight(evidence: &Evidence) -> Sight {
    let mut places = evidence.places.values();
    match needs_the_kernel(evidence) {
        Sight::Full if !places.any(|place| place.conntrack.is_some()) => {
            Sight::blind("no connection tracking here, or its table cannot be read")
        }
        sight => sight,
    }
}

fn judge(evidence: &Evidence) -> Vec<Finding> {
    let places = evidence.places.iter();
    places
        .filter_map(|(netns, place)| nearly_full(*netns, place.conntrack?))
        .collect()
}

fn nearly_full(netns: u32, table: Conntrack) -> Option<Finding> {
    // A limit of 0 is none.
    let percent = (table.entries.saturating_mul(100)).checked_div(table.most)?;
    if percent < NEARLY_PERCENT {
        return None;
    }
    let severity = if table.entries >= table.most {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let summary = format!("the connection tracking table is {percent} % full");
    Some(
        Finding::new("conntrack-full", severity, summary)
            .in_namespace(netns)
            .events(table.entries)
            .seen(format!(
                "net.netfilter.nf_conntrack_count {} of nf_conntrack_max {}",
                table.entries, table.most
            ))
            .because("when it is full, packets of new connections are dropped before TCP sees them")
            .because("connections come faster than entries end (established ones stay for days by default), or packets are tracked that need not be")
            .mend(format!(
                "on the node: sysctl -w net.netfilter.nf_conntrack_max={}",
                table.most.saturating_mul(2)
            ))
            .mend("conntrack -S for drops; conntrack -L | awk '{print $4}' | sort | uniq -c for what fills it"),
    )
}
