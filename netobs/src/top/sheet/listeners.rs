//! Listeners: queues, drops, and how long connections wait.

use super::{Cell, Column, Row, Sheet, latency, netns, who};
use crate::{
    audit::finding::Severity,
    top::{
        Subject,
        model::{ListenerRow, Tables},
        text,
    },
};

pub(super) const SHEET: Sheet = Sheet {
    name: "Listeners",
    columns: &[
        Column::numbers("PORT", 0),
        Column::words("ADDRESS", 9, 39, 4),
        Column::words("PROCESS", 8, 24, 0),
        Column::words("POD/CONTAINER", 13, 40, 7),
        Column::numbers("NETNS", 8),
        Column::numbers("QUEUE", 0),
        Column::numbers("PEAK", 2),
        Column::numbers("LIMIT", 1),
        Column::numbers("DROPS", 0),
        Column::numbers("DROPS/s", 2),
        Column::numbers("OVERFLOWS", 6),
        Column::numbers("ACCEPTS/s", 5),
        Column::numbers("P50<=", 5),
        Column::numbers("P99<=", 3),
        Column::trend(4),
    ],
    sorted_by: 8,
    empty: "no listeners",
    rows,
    subject,
    detail,
};

fn rows(tables: &Tables) -> Vec<Row> {
    tables.listeners.iter().enumerate().map(row).collect()
}

fn row((at, row): (usize, &ListenerRow)) -> Row {
    let listener = &row.listener;
    let cells = vec![
        Cell::Number(listener.port.into()),
        Cell::Text(listener.address.to_string()),
        Cell::Text(listener.who.process.clone()),
        Cell::Text(listener.who.workload()),
        netns(&listener.who),
        Cell::Count(row.queue_length),
        Cell::Count(row.queue_peak),
        Cell::Count(row.queue_limit),
        Cell::Count(row.drops),
        Cell::Rate(row.drops_per_second),
        Cell::Count(row.overflows),
        Cell::Rate(row.accepts_per_second),
        Cell::Latency(row.accept_latency_p50),
        Cell::Latency(row.accept_latency_p99),
        Cell::Trend(row.trend.clone()),
    ];
    Row::new(at, listener, cells).alarmed(alarm(row))
}

fn subject(tables: &Tables, at: usize) -> Option<Subject> {
    let listener = &tables.listeners.get(at)?.listener;
    let address = listener.address.to_string();
    Some(Subject::new(&listener.who, &[listener.port], &[&address]))
}

/// Drops now are harm; a queue that has been full will drop next.
fn alarm(row: &ListenerRow) -> Option<Severity> {
    if row.drops_per_second > 0.0 {
        Some(Severity::Critical)
    } else if row.sockets > 0 && row.queue_length > 0 && row.queue_length >= row.queue_limit {
        Some(Severity::Warning)
    } else {
        None
    }
}

fn detail(tables: &Tables, at: usize) -> Vec<String> {
    let Some(row) = tables.listeners.get(at) else {
        return Vec::new();
    };
    let mut lines = vec![
        format!(
            "listens at {} port {}",
            row.listener.address, row.listener.port
        ),
        format!("sockets    {}", row.sockets),
    ];
    lines.extend(who(&row.listener.who));
    lines.push(String::new());
    let cut = match row.cut_by_somaxconn {
        Some(true) => ", cut by net.core.somaxconn",
        Some(false) => ", as listen() asked for",
        None => "",
    };
    lines.extend([
        format!(
            "accept queue  {} of {} now, {} at most in the last minute",
            row.queue_length, row.queue_limit, row.queue_peak
        ),
        format!("limit         {}{cut}; it holds one more", row.queue_limit),
        format!("SYN queue     {}", row.syn_queue_length),
        format!(
            "accepts       {}, {}/s; half of them waited {} at most, 99 of 100 {}",
            row.accepts,
            text::rate(row.accepts_per_second),
            latency(row.accept_latency_p50),
            latency(row.accept_latency_p99)
        ),
        format!(
            "drops         {}, {}/s, of which {} by overflow",
            row.drops,
            text::rate(row.drops_per_second),
            row.overflows
        ),
    ]);
    for (what, count) in &row.drops_by {
        lines.push(format!("  {what}: {count}"));
    }
    lines
}
