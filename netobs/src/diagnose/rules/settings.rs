//! Settings of which the window shows that they hurt, or that are never right.

use super::Rule;
use crate::{
    audit::finding::{Basis, Severity, Status},
    diagnose::{Evidence, Finding},
};

pub(super) const RULE: Rule = Rule {
    id: "settings",
    looks_at: "TCP settings of every namespace, held against what the counters show now",
    judge,
};

/// Advice without evidence is the auditor's business (`netobs audit`), not a diagnosis.
fn judge(evidence: &Evidence) -> Vec<Finding> {
    let Some(report) = &evidence.audit else {
        return Vec::new();
    };
    report
        .findings
        .iter()
        .filter(|found| found.status == Status::Finding)
        .filter(|found| {
            found.severity == Severity::Critical && found.basis == Some(Basis::Evidence)
        })
        .map(|found| {
            let mut finding = Finding::new(
                "setting",
                found.severity,
                format!("{}: {}", found.key, found.message),
            )
            .seen(format!("{} by {}", found.key, found.id))
            .mend(format!("netobs audit explain {}", found.id));
            if let Some(netns) = found.netns {
                finding = finding.in_namespace(netns);
            }
            for fact in &found.evidence {
                finding = finding.seen(format!("{}: {}", fact.source, fact.text));
            }
            finding
        })
        .collect()
}
