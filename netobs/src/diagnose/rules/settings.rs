//! Settings of which the window shows that they hurt, or that are never right.

use super::{Rule, Sight, needs_the_kernel};
use crate::{
    audit::finding::{Basis, Severity, Status},
    diagnose::{Evidence, Finding},
    sys::netstat::Counter,
};

pub(super) const RULE: Rule = Rule {
    id: "settings",
    looks_at: "TCP settings of every namespace, held against what the counters show now",
    sight,
    judge,
};

/// Of settings that hurt.
const ID: &str = "setting";
/// Rules of the auditor that say that two settings contradict each other: one of them does nothing, or
/// undoes the other, whatever the counters show.
const CONTRADICTIONS: [&str; 4] = [
    "NETOBS-TCP-010", // fast open bits that need another bit
    "NETOBS-TCP-020", // tcp_tw_reuse without time stamps
    "NETOBS-TCP-060", // buffer sizes out of order
    "NETOBS-TCP-075", // connection tracking forgets before keep-alive asks
];

/// Rules of the auditor whose fault has a finding of its own: theirs goes with it.
const COVERED: [(&str, &str); 6] = [
    ("NETOBS-TCP-030", "syn-queue-full"),
    ("NETOBS-TCP-040", "accept-queue-overflow"),
    ("NETOBS-TCP-041", "accept-queue-overflow"),
    ("NETOBS-TCP-044", "accept-queue-overflow"),
    ("NETOBS-TCP-070", "local-ports-exhausted"),
    ("NETOBS-TCP-090", "conntrack-full"),
];

/// Puts what the auditor says of a fault that has been found anyhow with that finding.
pub(in super::super) fn join(findings: &mut Vec<Finding>) {
    let (settings, mut others): (Vec<Finding>, Vec<Finding>) =
        findings.drain(..).partition(|finding| finding.id == ID);
    for setting in settings {
        let by = |rule: &str| setting.rule == Some(rule);
        let id = COVERED.iter().find(|(rule, _)| by(rule)).map(|(_, id)| *id);
        let same = others
            .iter_mut()
            .find(|finding| Some(finding.id) == id && finding.netns == setting.netns);
        match same {
            Some(finding) => {
                finding.evidence.push(setting.summary);
                finding.remedy.extend(setting.remedy);
            }
            None => others.push(setting),
        }
    }
    *findings = others;
}

fn sight(evidence: &Evidence) -> Sight {
    match needs_the_kernel(evidence) {
        Sight::Full if evidence.audit.is_none() => Sight::blind("they could not be read"),
        sight => sight,
    }
}

/// Advice without evidence is the auditor's business (`netobs audit`), not a diagnosis, but for
/// contradictions.
fn judge(evidence: &Evidence) -> Vec<Finding> {
    let findings = evidence.audit.iter().flat_map(|report| &report.findings);
    findings
        .filter(|found| found.status == Status::Finding)
        .filter_map(|found| {
            let hurts =
                found.severity == Severity::Critical && found.basis == Some(Basis::Evidence);
            let contradicts = CONTRADICTIONS.contains(&found.id)
                && found.severity >= Severity::Warning
                && found.netns.is_some_and(|netns| lives(evidence, netns));
            let id = match (hurts, contradicts) {
                (true, _) => ID,
                (false, true) => "settings-contradict",
                (false, false) => return None,
            };
            let summary = format!("{}: {}", found.key, found.message);
            let mut finding = Finding::new(id, found.severity, summary)
                .by(found.id)
                .seen(format!("{} by {}", found.key, found.id));
            for fact in &found.evidence {
                finding = finding.seen(format!("{}: {}", fact.source, fact.text));
            }
            if let Some(netns) = found.netns {
                finding = finding.in_namespace(netns);
            }
            let command = found.fix.as_ref().and_then(|fix| fix.command.clone());
            if let Some(command) = command {
                finding = finding.mend(command);
            }
            Some(finding.mend(format!("netobs audit explain {}", found.id)))
        })
        .collect()
}

/// Whether connections are made in a namespace: settings of an idle one hurt nobody.
fn lives(evidence: &Evidence, netns: u32) -> bool {
    let moved = |counter| evidence.moved(netns, counter);
    moved(Counter::ActiveOpens) + moved(Counter::PassiveOpens) > 0
}
