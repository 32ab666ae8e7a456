//! Sockets that send again.

use netobs_common::ledger::RetransmitType;

use super::{Cell, Column, Row, Sheet, netns, port, who};
use crate::{
    audit::finding::Severity,
    ledger::retransmits::TYPES,
    top::{
        Subject,
        model::{RetransmitRow, Tables},
        text,
    },
};

pub(super) const SHEET: Sheet = Sheet {
    name: "Retransmits",
    columns: &[
        Column::words("PROCESS", 8, 24, 0),
        Column::words("ROLE", 6, 6, 2),
        Column::numbers("PORT", 0),
        Column::words("POD/CONTAINER", 13, 40, 5),
        Column::numbers("NETNS", 6),
        Column::numbers("SEGMENTS", 0),
        Column::numbers("/s", 0),
        Column::numbers("TIMEOUT", 1),
        Column::numbers("FAST", 3),
        Column::numbers("PROBE", 4),
        Column::numbers("SYN", 2),
        Column::numbers("SYN-ACK", 4),
        Column::numbers("FAILED", 5),
        Column::trend(3),
    ],
    sorted_by: 5,
    empty: "nothing was sent again",
    rows,
    subject,
    detail,
};

fn rows(tables: &Tables) -> Vec<Row> {
    tables.retransmits.iter().enumerate().map(row).collect()
}

fn row((at, row): (usize, &RetransmitRow)) -> Row {
    let sockets = &row.sockets;
    let by = |kind: RetransmitType| {
        let count = row.by_type.get(kind as usize);
        Cell::Count(count.copied().unwrap_or(0))
    };
    let cells = vec![
        Cell::Text(sockets.who.process.clone()),
        Cell::Text(sockets.role.clone()),
        port(sockets.port),
        Cell::Text(sockets.who.workload()),
        netns(&sockets.who),
        Cell::Count(row.segments),
        Cell::Rate(row.segments_per_second),
        by(RetransmitType::Timeout),
        by(RetransmitType::Fast),
        by(RetransmitType::TailLossProbe),
        by(RetransmitType::Syn),
        by(RetransmitType::SynAck),
        Cell::Count(row.failures),
        Cell::Trend(row.trend.clone()),
    ];
    // Some loss is what TCP lives with.
    let alarm = (row.segments_per_second > 0.0).then_some(Severity::Warning);
    Row::new(at, sockets, cells).alarmed(alarm)
}

fn subject(tables: &Tables, at: usize) -> Option<Subject> {
    let sockets = &tables.retransmits.get(at)?.sockets;
    Some(Subject::new(
        &sockets.who,
        &[sockets.port],
        &[&sockets.role],
    ))
}

fn detail(tables: &Tables, at: usize) -> Vec<String> {
    let Some(row) = tables.retransmits.get(at) else {
        return Vec::new();
    };
    let place = match (&*row.sockets.role, row.sockets.port) {
        ("server", port) => format!("as a server at port {port}"),
        (_, 0) => "as a client of ephemeral ports".to_owned(),
        (_, port) => format!("as a client of port {port}"),
    };
    let mut lines = vec![place];
    lines.extend(who(&row.sockets.who));
    lines.push(String::new());
    lines.push(format!(
        "segments sent again  {}, {}/s",
        row.segments,
        text::rate(row.segments_per_second)
    ));
    for (kind, count) in TYPES.iter().zip(row.by_type) {
        lines.push(format!("  {}: {count}", kind.name()));
    }
    lines.push(format!(
        "attempts that the stack could not send: {}",
        row.failures
    ));
    lines
}
