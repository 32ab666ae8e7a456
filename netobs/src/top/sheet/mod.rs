//! Sheets: columns, rows and their order.

mod connects;
mod findings;
mod listeners;
mod resets;
mod retransmits;

use std::{
    borrow::Cow,
    cmp::Ordering,
    hash::{DefaultHasher, Hash, Hasher as _},
};

use super::{Subject, Who, model::Tables, text};
use crate::audit::finding::Severity;

/// A sheet of the view.
#[derive(Clone, Copy, Debug)]
pub struct Sheet {
    /// In the line of sheets.
    pub name: &'static str,
    /// Its columns, from the left.
    pub columns: &'static [Column],
    /// The column that it is sorted by to begin with.
    pub sorted_by: usize,
    /// What is shown when there are no rows.
    pub empty: &'static str,
    rows: fn(&Tables) -> Vec<Row>,
    subject: fn(&Tables, usize) -> Option<Subject>,
    detail: fn(&Tables, usize) -> Vec<String>,
}

/// Every sheet, in the order of their keys.
pub const SHEETS: [&Sheet; 5] = [
    &listeners::SHEET,
    &retransmits::SHEET,
    &connects::SHEET,
    &resets::SHEET,
    &findings::SHEET,
];

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Above it.
    pub title: &'static str,
    /// Never narrower.
    pub least: usize,
    /// Never wider.
    pub most: usize,
    /// What is too wide for the terminal goes, the highest rank first.
    pub rank: u8,
    /// Whether it is aligned to the right.
    pub right: bool,
}

impl Column {
    /// Words, aligned to the left.
    const fn words(title: &'static str, least: usize, most: usize, rank: u8) -> Self {
        Self {
            title,
            least,
            most,
            rank,
            right: false,
        }
    }

    /// Numbers, aligned to the right.
    const fn numbers(title: &'static str, rank: u8) -> Self {
        Self {
            title,
            least: title.len(),
            most: 10,
            rank,
            right: true,
        }
    }

    /// A history.
    const fn trend(rank: u8) -> Self {
        Self::words("2 MINUTES", 9, 60, rank)
    }
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A word; made fit for a terminal where it is shown.
    Text(String),
    /// A number.
    Count(u64),
    /// A port or the number of a namespace: not shortened.
    Number(u64),
    /// A number a second.
    Rate(f64),
    /// A time in ns; `None` when there was none.
    Latency(Option<u64>),
    /// By seconds, the latest last.
    Trend(Vec<u32>),
    /// How grave it is.
    Severity(Severity),
}

impl Cell {
    /// As shown; a history is drawn by the view.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) if text.is_empty() => "-".into(),
            Self::Text(text) => text::printable(text),
            Self::Count(number) => text::count(*number).into(),
            Self::Number(number) => number.to_string().into(),
            Self::Rate(rate) => text::rate(*rate).into(),
            Self::Latency(None) => "-".into(),
            Self::Latency(Some(ns)) => text::latency(*ns).into(),
            Self::Trend(_) => "".into(),
            Self::Severity(severity) => severity.as_str().into(),
        }
    }

    /// Whether the greatest comes first when a column of it is sorted.
    #[must_use]
    fn falls(&self) -> bool {
        !matches!(self, Self::Text(_) | Self::Number(_))
    }

    /// The order in which they are first shown.
    fn compare(&self, other: &Self) -> Ordering {
        let order = match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Count(a), Self::Count(b)) | (Self::Number(a), Self::Number(b)) => a.cmp(b),
            (Self::Rate(a), Self::Rate(b)) => a.total_cmp(b),
            (Self::Latency(a), Self::Latency(b)) => a.cmp(b),
            (Self::Severity(a), Self::Severity(b)) => a.cmp(b),
            (Self::Trend(a), Self::Trend(b)) => sum(a).cmp(&sum(b)),
            _ => Ordering::Equal,
        };
        if self.falls() { order.reverse() } else { order }
    }
}

fn sum(trend: &[u32]) -> u64 {
    trend.iter().map(|grown| u64::from(*grown)).sum()
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its place in its table.
    at: usize,
    /// Tells it from others, now and later: of what it is of. Two that were the same by chance would
    /// be selected in each other's place.
    pub id: u64,
    /// One for each column.
    pub cells: Vec<Cell>,
    /// Whether it has trouble now, and how grave it is.
    pub alarm: Option<Severity>,
}

impl Row {
    fn new(at: usize, of: &impl Hash, cells: Vec<Cell>) -> Self {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        Self {
            at,
            id: hasher.finish(),
            cells,
            alarm: None,
        }
    }

    fn alarmed(mut self, alarm: Option<Severity>) -> Self {
        self.alarm = alarm;
        self
    }
}

impl Sheet {
    /// Its rows, in no order that means anything.
    #[must_use]
    pub fn rows(&self, tables: &Tables) -> Vec<Row> {
        (self.rows)(tables)
    }

    /// What filters look at in a row.
    #[must_use]
    pub fn subject(&self, tables: &Tables, row: &Row) -> Subject {
        (self.subject)(tables, row.at).unwrap_or_default()
    }

    /// Everything that is known of a row, one line each.
    #[must_use]
    pub fn detail(&self, tables: &Tables, row: &Row) -> Vec<String> {
        (self.detail)(tables, row.at)
    }

    /// The order of two rows by a column; rows that are equal there keep the order of their
    /// tables, which is that of what they are of, so that they stay in their places.
    #[must_use]
    pub fn compare(&self, column: usize, reversed: bool, a: &Row, b: &Row) -> Ordering {
        let order = match (a.cells.get(column), b.cells.get(column)) {
            (Some(a), Some(b)) => a.compare(b),
            _ => Ordering::Equal,
        };
        let order = if reversed { order.reverse() } else { order };
        order.then(a.at.cmp(&b.at))
    }

    /// Whether a column falls from top to bottom.
    #[must_use]
    pub fn falls(&self, column: usize, reversed: bool, rows: &[Row]) -> bool {
        let first = rows.first().and_then(|row| row.cells.get(column));
        first.is_none_or(Cell::falls) != reversed
    }
}

fn netns(who: &Who) -> Cell {
    match who.netns {
        Some(netns) => Cell::Number(netns.into()),
        None => Cell::Text(String::new()),
    }
}

/// Lines of a detail that all owners have.
fn who(who: &Who) -> Vec<String> {
    let netns = who
        .netns
        .map_or_else(|| "not known".to_owned(), |netns| netns.to_string());
    let mut lines = vec![
        format!("process    {}", or_dash(&who.process)),
        format!("netns      {netns}"),
    ];
    for (name, value) in [
        ("pod       ", format!("{}/{}", who.namespace, who.pod)),
        ("pod uid   ", who.pod_uid.clone()),
        ("container ", who.container.clone()),
        ("id        ", who.container_id.clone()),
    ] {
        if !value.is_empty() && value != "/" {
            lines.push(format!("{name} {value}"));
        }
    }
    lines
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A port as rows show it: 0 stands for ephemeral ones.
fn port(port: u16) -> Cell {
    match port {
        0 => Cell::Text("any".to_owned()),
        port => Cell::Number(port.into()),
    }
}

fn latency(ns: Option<u64>) -> String {
    ns.map_or_else(|| "-".to_owned(), text::latency)
}
