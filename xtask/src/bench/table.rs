//! What is printed: ratios first.

use super::budgets;
use super::record::{Figure, Record, number};

/// Prints the figures of one case.
pub(super) fn print_case(record: &Record, case: &str) {
    let mut rows =
        vec![["measure", "subject", "ratio", "median", "least to most"].map(str::to_owned)];
    let figures = record.figures.iter().filter(|figure| figure.case == case);
    rows.extend(figures.map(row));
    if rows.len() > 1 {
        print_rows(&rows);
    }
    for figure in record.figures.iter().filter(|figure| figure.case == case) {
        if let Some(note) = &figure.note {
            println!("  {}, {}: {note}", figure.measure, figure.subject);
        }
    }
    for absent in record.absent.iter().filter(|absent| absent.case == case) {
        println!("  {} is absent: {}", absent.subject, absent.reason);
    }
}

fn row(figure: &Figure) -> [String; 5] {
    [
        figure.measure.clone(),
        figure.subject.clone(),
        figure
            .ratio
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string),
        figure.unit.show(figure.value.median),
        spread(figure),
    ]
}

/// The least and the most of a figure; nothing when it was measured once.
pub(super) fn spread(figure: &Figure) -> String {
    if figure.value.runs < 2 {
        return String::new();
    }
    let scale = if figure.unit == super::Unit::Part {
        100.0
    } else {
        1.0
    };
    format!(
        "{} to {} ({})",
        number(figure.value.least * scale),
        number(figure.value.most * scale),
        figure.value.runs
    )
}

/// Prints the budgets of which there are figures.
pub(super) fn print_budgets(record: &Record) {
    let mut rows = vec![["budget", "target", "found", "verdict"].map(str::to_owned)];
    rows.extend(budgets::verdicts(record).map(|verdict| {
        [
            verdict.budget.what.to_owned(),
            verdict.budget.target(),
            verdict.found(),
            verdict.words(),
        ]
    }));
    if rows.len() > 1 {
        print_rows(&rows);
    }
}

fn print_rows<const N: usize>(rows: &[[String; N]]) {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        println!("  {}", cells.join("  ").trim_end());
    }
}
