//! Outgoing handshakes.

use netobs_common::connection::ConnectFailure;

use super::{Cell, Column, Row, Sheet, latency, netns, port, who};
use crate::{
    audit::finding::Severity,
    top::{
        Subject,
        model::{ConnectRow, Tables},
        text,
    },
};

pub(super) const SHEET: Sheet = Sheet {
    name: "Connects",
    columns: &[
        Column::words("PROCESS", 8, 24, 0),
        Column::numbers("TO PORT", 0),
        Column::words("POD/CONTAINER", 13, 40, 5),
        Column::numbers("NETNS", 6),
        Column::numbers("WAITING", 0),
        Column::numbers("DONE/s", 2),
        Column::numbers("FAILED", 0),
        Column::numbers("FAILED/s", 1),
        Column::numbers("REFUSED", 3),
        Column::numbers("TIMEOUT", 3),
        Column::numbers("P50<=", 5),
        Column::numbers("P99<=", 2),
        Column::trend(4),
    ],
    sorted_by: 6,
    empty: "nobody connects",
    rows,
    subject,
    detail,
};

fn rows(tables: &Tables) -> Vec<Row> {
    tables.connects.iter().enumerate().map(row).collect()
}

fn row((at, row): (usize, &ConnectRow)) -> Row {
    let ConnectRow { connects, .. } = row;
    let by = |why: ConnectFailure| {
        let count = row.failures.get(why as usize);
        Cell::Count(count.copied().unwrap_or(0))
    };
    let cells = vec![
        Cell::Text(connects.who.process.clone()),
        port(connects.port),
        Cell::Text(connects.who.workload()),
        netns(&connects.who),
        Cell::Count(row.waiting),
        Cell::Rate(row.completed_per_second),
        Cell::Count(row.failed),
        Cell::Rate(row.failed_per_second),
        by(ConnectFailure::Refused),
        by(ConnectFailure::TimedOut),
        Cell::Latency(row.latency_p50),
        Cell::Latency(row.latency_p99),
        Cell::Trend(row.trend.clone()),
    ];
    let alarm = (row.failed_per_second > 0.0).then_some(Severity::Critical);
    Row::new(at, connects, cells).alarmed(alarm)
}

fn subject(tables: &Tables, at: usize) -> Option<Subject> {
    let connects = &tables.connects.get(at)?.connects;
    Some(Subject::new(&connects.who, &[connects.port], &[]))
}

fn detail(tables: &Tables, at: usize) -> Vec<String> {
    let Some(row) = tables.connects.get(at) else {
        return Vec::new();
    };
    let mut lines = vec![match row.connects.port {
        0 => "connects to ephemeral ports".to_owned(),
        port => format!("connects to port {port}"),
    }];
    lines.extend(who(&row.connects.who));
    lines.push(String::new());
    lines.extend([
        format!("under way  {}", row.waiting),
        format!(
            "completed  {}, {}/s; half of them took {} at most, 99 of 100 {}",
            row.completed,
            text::rate(row.completed_per_second),
            latency(row.latency_p50),
            latency(row.latency_p99)
        ),
        format!(
            "failed     {}, {}/s",
            row.failed,
            text::rate(row.failed_per_second)
        ),
    ]);
    for (why, count) in ConnectFailure::ALL.iter().zip(row.failures) {
        if count > 0 {
            lines.push(format!("  {}: {count}", why.name()));
        }
    }
    lines
}
