//! What is wrong, for whom, and what to do: rules over what was counted, or recorded, in a window.
//!
//! Pure: two [`Snapshot`]s of the books, what the events between them told ([`Observed`]), the stories
//! of connections and what the auditor says go in as [`Evidence`], a [`Diagnosis`] comes out. For a
//! recording, [`Past`] makes evidence of its events alone. A rule is one file in [`rules`] and one line
//! in its table; what it could not look at is said, never passed over.

mod evidence;
mod finding;
mod observed;
mod past;
mod report;
mod rules;
mod snapshot;
#[cfg(test)]
mod tests;

pub use self::{
    evidence::{Conntrack, Evidence, PathSeen, Place, Source},
    finding::{Diagnosis, Finding, Healthy, NotSeen, SCHEMA_VERSION},
    observed::Observed,
    past::Past,
    report::{markdown, text},
    snapshot::{Listening, Lookups, Snapshot},
};

use self::rules::Sight;
use crate::probes::Exactness;

/// Judges the evidence.
#[must_use]
pub fn diagnose(evidence: &Evidence) -> Diagnosis {
    let mut diagnosis = Diagnosis::new(evidence);
    for rule in rules::ALL {
        let findings = (rule.judge)(evidence);
        match (rule.sight)(evidence) {
            // What could not be had at all has been said.
            Sight::Blind(_) if is_said(&diagnosis, rule.id) => {}
            Sight::Blind(why) => diagnosis.not_seen.push(NotSeen {
                what: rule.id.to_owned(),
                why,
            }),
            Sight::Full if findings.is_empty() => diagnosis.healthy.push(Healthy {
                rule: rule.id,
                looked_at: rule.looks_at,
            }),
            Sight::Full | Sight::Nothing => {}
        }
        diagnosis.findings.extend(findings);
    }
    rules::join(&mut diagnosis.findings);
    // The gravest first, and what is told of more events before what is told of fewer.
    diagnosis
        .findings
        .sort_by_key(|finding| std::cmp::Reverse((finding.severity, finding.events)));
    let gaps = evidence.after.signals.iter().filter(|signal| {
        matches!(
            signal.exactness,
            Exactness::Unavailable | Exactness::LowerBound
        )
    });
    for signal in gaps {
        let what = signal.signal.name();
        // A rule may have said it of itself.
        if !is_said(&diagnosis, what) {
            diagnosis.not_seen.push(NotSeen {
                what: what.to_owned(),
                why: signal.because.to_owned(),
            });
        }
    }
    diagnosis
}

fn is_said(diagnosis: &Diagnosis, what: &str) -> bool {
    diagnosis.not_seen.iter().any(|gap| gap.what == what)
}
