//! What a diagnosis of the last half minute says.

use super::{Cell, Column, Row, Sheet, netns, who};
use crate::{
    diagnose::Finding,
    top::{Subject, Who, model::Tables},
};

pub(super) const SHEET: Sheet = Sheet {
    name: "Findings",
    columns: &[
        Column::words("SEVERITY", 8, 8, 0),
        Column::words("FINDING", 30, 160, 0),
        Column::words("PROCESS", 8, 24, 2),
        Column::words("POD/CONTAINER", 13, 40, 4),
        Column::numbers("NETNS", 3),
        Column::numbers("EVENTS", 1),
    ],
    sorted_by: 0,
    empty: "nothing wrong was seen",
    rows,
    detail,
};

fn owner(finding: &Finding) -> Who {
    Who {
        netns: finding.netns,
        process: finding.process.clone(),
        container_id: finding.container_id.clone(),
        pod_uid: finding.pod_uid.clone(),
        ..Who::default()
    }
}

fn rows(tables: &Tables) -> Vec<Row> {
    let diagnosis = tables.diagnosis.iter();
    let findings = diagnosis.flat_map(|diagnosis| &diagnosis.findings);
    findings.enumerate().map(row).collect()
}

fn row((at, finding): (usize, &Finding)) -> Row {
    let owner = owner(finding);
    let cells = vec![
        Cell::Severity(finding.severity),
        Cell::Text(finding.summary.clone()),
        Cell::Text(finding.process.clone()),
        Cell::Text(owner.workload()),
        netns(&owner),
        Cell::Count(finding.events),
    ];
    let subject = Subject::new(&owner, &[], &[finding.id, &finding.summary]);
    // Not by its summary, whose numbers change.
    let id = format!("{} {owner:?} {at}", finding.id);
    Row::new(at, id, cells, subject).alarmed(Some(finding.severity))
}

fn detail(tables: &Tables, at: usize) -> Vec<String> {
    let diagnosis = tables.diagnosis.as_ref();
    let Some(finding) = diagnosis.and_then(|diagnosis| diagnosis.findings.get(at)) else {
        return Vec::new();
    };
    let mut lines = vec![finding.summary.clone(), String::new()];
    lines.extend(who(&owner(finding)));
    for (name, part) in [
        ("evidence", &finding.evidence),
        ("cause", &finding.cause),
        ("do", &finding.remedy),
    ] {
        if !part.is_empty() {
            lines.extend([String::new(), name.to_owned()]);
            lines.extend(part.iter().map(|line| format!("  {line}")));
        }
    }
    lines
}
