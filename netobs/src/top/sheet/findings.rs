//! What a diagnosis of the last half minute, and of the one before, says.

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
    subject,
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
    let findings = tables.findings().enumerate();
    findings
        .map(|(at, (finding, earlier))| row(at, finding, earlier))
        .collect()
}

fn row(at: usize, finding: &Finding, earlier: bool) -> Row {
    let owner = owner(finding);
    let summary = if earlier {
        format!("earlier: {}", finding.summary)
    } else {
        finding.summary.clone()
    };
    let cells = vec![
        Cell::Severity(finding.severity),
        Cell::Text(summary),
        Cell::Text(finding.process.clone()),
        Cell::Text(owner.workload()),
        netns(&owner),
        Cell::Count(finding.events),
    ];
    // Not by its summary, whose numbers change.
    let row = Row::new(at, &(finding.id, &owner, at), cells);
    row.alarmed((!earlier).then_some(finding.severity))
}

fn subject(tables: &Tables, at: usize) -> Option<Subject> {
    let (finding, _) = tables.findings().nth(at)?;
    let words = [finding.id, &*finding.summary];
    Some(Subject::new(&owner(finding), &[], &words))
}

fn detail(tables: &Tables, at: usize) -> Vec<String> {
    let Some((finding, _)) = tables.findings().nth(at) else {
        return Vec::new();
    };
    let mut lines = vec![finding.summary.clone(), String::new()];
    lines.extend(who(&owner(finding)));
    for (name, part) in [
        ("evidence", &finding.evidence),
        ("cause", &finding.cause),
        ("do", &finding.remedy),
        ("connections", &finding.stories),
    ] {
        if !part.is_empty() {
            lines.extend([String::new(), name.to_owned()]);
            lines.extend(part.iter().map(|line| format!("  {line}")));
        }
    }
    lines
}
