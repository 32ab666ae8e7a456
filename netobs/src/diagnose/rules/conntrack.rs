//! A connection tracking table that is full drops packets that no TCP counter tells of.

use super::Rule;
use crate::{
    audit::finding::Severity,
    diagnose::{Evidence, Finding},
};

pub(super) const RULE: Rule = Rule {
    id: "conntrack",
    looks_at: "room in the connection tracking table",
    judge,
};

/// From here on the next burst may fill it.
const NEARLY_PERCENT: u64 = 90;

fn judge(evidence: &Evidence) -> Vec<Finding> {
    let Some(table) = evidence.conntrack else {
        return Vec::new();
    };
    let percent = (table.entries * 100).checked_div(table.most).unwrap_or(0);
    if percent < NEARLY_PERCENT {
        return Vec::new();
    }
    let severity = if table.entries >= table.most {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let summary = format!("the connection tracking table is {percent} % full");
    let finding = Finding::new("conntrack-full", severity, summary)
        .events(table.entries)
        .seen(format!("{} of {} entries", table.entries, table.most))
        .because("when it is full, new connections are dropped before TCP sees them")
        .mend(format!("sysctl -w net.netfilter.nf_conntrack_max={}", table.most * 2))
        .mend("conntrack -S for drops; conntrack -L | awk '{print $4}' | sort | uniq -c for what fills it");
    vec![finding]
}
