//! Connections that were reset.

use super::{Cell, Column, Row, Sheet, netns, or_dash, port, who};
use crate::{
    audit::finding::Severity,
    top::{
        Subject,
        model::{ResetRow, Tables},
        text,
    },
};

pub(super) const SHEET: Sheet = Sheet {
    name: "Resets",
    columns: &[
        Column::words("PROCESS", 8, 24, 0),
        Column::words("ROLE", 6, 6, 2),
        Column::numbers("PORT", 0),
        Column::words("POD/CONTAINER", 13, 40, 5),
        Column::numbers("NETNS", 6),
        Column::words("DIRECTION", 9, 9, 1),
        Column::words("STATE", 11, 12, 3),
        Column::words("REASON", 10, 24, 4),
        Column::numbers("RESETS", 0),
        Column::numbers("/s", 0),
        Column::trend(4),
    ],
    sorted_by: 8,
    empty: "no resets",
    rows,
    subject,
    detail,
};

fn rows(tables: &Tables) -> Vec<Row> {
    tables.resets.iter().enumerate().map(row).collect()
}

fn row((at, row): (usize, &ResetRow)) -> Row {
    let reset = &row.reset;
    let sockets = &reset.sockets;
    let cells = vec![
        Cell::Text(sockets.who.process.clone()),
        Cell::Text(sockets.role.clone()),
        port(sockets.port),
        Cell::Text(sockets.who.workload()),
        netns(&sockets.who),
        Cell::Text(reset.direction.clone()),
        Cell::Text(reset.state.clone()),
        Cell::Text(reset.reason.clone()),
        Cell::Count(row.resets),
        Cell::Rate(row.resets_per_second),
        Cell::Trend(row.trend.clone()),
    ];
    // A reset ends a connection; whether that is a fault, the findings say.
    let alarm = (row.resets_per_second > 0.0).then_some(Severity::Info);
    Row::new(at, reset, cells).alarmed(alarm)
}

fn subject(tables: &Tables, at: usize) -> Option<Subject> {
    let reset = &tables.resets.get(at)?.reset;
    let words = [
        &*reset.sockets.role,
        &*reset.direction,
        &*reset.state,
        &*reset.reason,
    ];
    let sockets = &reset.sockets;
    Some(Subject::new(&sockets.who, &[sockets.port], &words))
}

fn detail(tables: &Tables, at: usize) -> Vec<String> {
    let Some(row) = tables.resets.get(at) else {
        return Vec::new();
    };
    let mut lines = vec![format!(
        "{} port {}, {}",
        or_dash(&row.reset.sockets.role),
        row.reset.sockets.port,
        match &*row.reset.direction {
            "received" => "reset by the peer",
            _ => "reset from here",
        }
    )];
    lines.extend(who(&row.reset.sockets.who));
    lines.extend([
        String::new(),
        format!("state   {} before", or_dash(&row.reset.state)),
        format!("reason  {}", or_dash(&row.reset.reason)),
        format!(
            "resets  {}, {}/s",
            row.resets,
            text::rate(row.resets_per_second)
        ),
    ]);
    lines
}
