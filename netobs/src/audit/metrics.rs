//! Settings and findings as metrics, filled from a snapshot and its report.
//!
//! Gauges of a whole report at once: what is gone since the last report is gone here too, so
//! series never go stale. Refreshing costs one pass over plain data.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::audit::finding::{Severity, Status};
use crate::audit::keys::KEYS;
use crate::audit::report::Report;
use crate::audit::snapshot::{Machine, State};
use crate::audit::value::Reading;

/// Label sets of one family; namespaces times settings can be many.
const MAX_SERIES: usize = 1000;
/// Label of what does not fit.
const OTHER: &str = "other";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ValueLabels {
    netns: String,
    key: &'static str,
    /// Position in a setting of several numbers; empty for single ones.
    index: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CountLabels {
    netns: String,
    severity: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FindingLabels {
    netns: String,
    id: &'static str,
    severity: &'static str,
}

/// The families of the auditor.
#[derive(Clone, Debug, Default)]
pub struct AuditMetrics {
    values: Family<ValueLabels, Gauge>,
    counts: Family<CountLabels, Gauge>,
    findings: Family<FindingLabels, Gauge>,
    left_out: Gauge,
}

/// How many series did not fit, by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Of `netobs_sysctl_value`: left out, since values cannot be added up.
    pub values: usize,
    /// Of `netobs_sysctl_finding`: folded into `netns="other"`.
    pub findings: usize,
}

/// A family of the auditor: its name without the prefix `netobs_`, its help and its labels.
pub struct FamilyText {
    /// Without the prefix.
    pub name: &'static str,
    /// One sentence, without its full stop.
    pub help: &'static str,
    /// In the order in which they are exposed.
    pub labels: &'static [&'static str],
}

/// All of them, gauges.
pub const FAMILIES: [FamilyText; 4] = [
    FamilyText {
        name: "sysctl_value",
        help: "Numeric TCP settings in force, by network namespace; index counts from 0 in settings of several numbers",
        labels: &["netns", "key", "index"],
    },
    FamilyText {
        name: "sysctl_findings",
        help: "Findings of the sysctl auditor, by network namespace and severity",
        labels: &["netns", "severity"],
    },
    FamilyText {
        name: "sysctl_finding",
        help: "1 for each finding of the sysctl auditor",
        labels: &["netns", "id", "severity"],
    },
    FamilyText {
        name: "sysctl_values_left_out",
        help: "Settings without a series in netobs_sysctl_value, which holds 1000: all of the host, and of other namespaces what matters most",
        labels: &[],
    },
];

impl AuditMetrics {
    /// Registers the families; `registry` brings the prefix `netobs`.
    pub fn register(&self, registry: &mut Registry) {
        let [values, counts, findings, left_out] = &FAMILIES;
        registry.register(values.name, values.help, self.values.clone());
        registry.register(counts.name, counts.help, self.counts.clone());
        registry.register(findings.name, findings.help, self.findings.clone());
        registry.register(left_out.name, left_out.help, self.left_out.clone());
    }

    /// Replaces everything by what `machine` and `report` say.
    pub fn fill(&self, machine: &Machine, report: &Report) -> Folded {
        self.values.clear();
        self.counts.clear();
        self.findings.clear();
        let mut folded = Folded::default();
        let mut series = 0;
        // The host's settings come first, then those of all other namespaces by the table of settings:
        // what matters most is left out last.
        let values = std::iter::once(&machine.host)
            .filter(|host| host.selected)
            .flat_map(|host| KEYS.iter().map(move |key| (host, key)))
            .chain(
                KEYS.iter()
                    .flat_map(|key| machine.others.iter().map(move |ns| (ns, key))),
            )
            .filter(|(ns, _)| ns.state == State::Audited);
        for (ns, key) in values {
            let numbers = ns.settings.get(key.name).map_or(&[][..], Reading::numbers);
            for (index, number) in numbers.iter().enumerate() {
                if series == MAX_SERIES {
                    folded.values += 1;
                    continue;
                }
                series += 1;
                let index = if numbers.len() > 1 {
                    index.to_string()
                } else {
                    String::new()
                };
                let labels = ValueLabels {
                    netns: ns.inode.to_string(),
                    key: key.name,
                    index,
                };
                self.values.get_or_create(&labels).set(*number);
            }
        }
        for ns in machine.selected().filter(|ns| ns.state == State::Audited) {
            for severity in Severity::ALL {
                let netns = ns.inode.to_string();
                self.counts
                    .get_or_create(&CountLabels {
                        netns,
                        severity: severity.as_str(),
                    })
                    .set(0);
            }
        }
        let mut series = 0;
        for finding in report
            .findings
            .iter()
            .filter(|f| f.status == Status::Finding)
        {
            // Persistent files are the host's.
            let netns = finding.netns.unwrap_or(machine.host.inode).to_string();
            let severity = finding.severity.as_str();
            self.counts
                .get_or_create(&CountLabels {
                    netns: netns.clone(),
                    severity,
                })
                .inc();
            let labels = FindingLabels {
                netns,
                id: finding.id,
                severity,
            };
            if self.findings.get(&labels).is_some() {
                continue;
            }
            let labels = if series < MAX_SERIES {
                series += 1;
                labels
            } else {
                folded.findings += 1;
                FindingLabels {
                    netns: OTHER.to_owned(),
                    ..labels
                }
            };
            self.findings.get_or_create(&labels).set(1);
        }
        self.left_out
            .set(i64::try_from(folded.values).unwrap_or(i64::MAX));
        folded
    }
}
