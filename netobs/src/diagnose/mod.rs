//! What is wrong, for whom, and what to do: rules over what was counted in a window.
//!
//! Pure: two [`Snapshot`]s of the books, the peers of the events between them and what the auditor
//! says go in as [`Evidence`], a [`Diagnosis`] comes out. A rule is one file in [`rules`] and one
//! line in its table; what it could not look at is said, never passed over.

mod evidence;
mod finding;
mod peers;
mod report;
mod rules;

pub use self::{
    evidence::{Conntrack, Evidence, PathSeen, Snapshot},
    finding::{Diagnosis, Finding, Healthy, NotSeen, SCHEMA_VERSION},
    peers::Peers,
    report::{markdown, text},
};

use crate::probes::Exactness;

/// Judges the evidence.
#[must_use]
pub fn diagnose(evidence: &Evidence) -> Diagnosis {
    let mut diagnosis = Diagnosis::new(evidence);
    for rule in rules::ALL {
        let findings = (rule.judge)(evidence);
        if findings.is_empty() && !rule.is_moot(evidence) {
            diagnosis.healthy.push(Healthy {
                rule: rule.id,
                looked_at: rule.looks_at,
            });
        }
        diagnosis.findings.extend(findings);
    }
    // The gravest first, and what is told of more events before what is told of fewer.
    diagnosis
        .findings
        .sort_by_key(|finding| std::cmp::Reverse((finding.severity, finding.events)));
    diagnosis.not_seen.extend(
        evidence
            .after
            .signals
            .iter()
            .filter(|signal| {
                matches!(
                    signal.exactness,
                    Exactness::Unavailable | Exactness::LowerBound
                )
            })
            .map(|signal| NotSeen {
                what: signal.signal.name().to_owned(),
                why: signal.because.to_owned(),
            }),
    );
    diagnosis
}
