//! The head: what is watched, and four numbers of the whole machine with their histories.

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{Look, line};
use crate::{
    audit::finding::Severity,
    top::{
        State,
        model::{SECONDS, Total},
        printable, text,
    },
};

/// Lines of the head on a terminal that is so high.
pub(super) fn height(height: u16) -> u16 {
    match height {
        0..10 => 1,
        10..18 => 2,
        _ => 6,
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, look: &Look) {
    let tables = state.tables();
    let mut title = Line::from(Span::styled("netobs top", look.strong()));
    let about = if state.has_read() {
        let watched = text::span(tables.watched_seconds);
        vec![
            format!("  {} netns", tables.namespaces),
            format!("  watching {watched}"),
        ]
    } else {
        vec!["  waiting for the first reading".to_owned()]
    };
    let source = format!("  {}", printable(&look.source));
    let width = usize::from(area.width);
    for part in std::iter::once(source).chain(about).map(Span::raw) {
        if title.width() + part.width() <= width {
            title.push_span(part);
        }
    }
    let clock = Line::raw(look.clock.as_str());
    let room = width.saturating_sub(title.width());
    line(frame, area, 0, title);
    if clock.width() + 2 <= room {
        line(frame, area, 0, clock.right_aligned());
    }
    let waiting: u64 = tables.connects.iter().map(|row| row.waiting).sum();
    let numbers = [
        ("drops", &tables.drops, Severity::Critical, String::new()),
        (
            "sent again",
            &tables.retransmitted,
            Severity::Warning,
            String::new(),
        ),
        (
            "connects failed",
            &tables.connects_failed,
            Severity::Critical,
            format!("  {} under way", text::count(waiting)),
        ),
        ("resets", &tables.reset, Severity::Info, String::new()),
    ];
    if area.height == 2 {
        let mut spans = Vec::new();
        for (name, total, severity, _) in numbers {
            let style = style(total, severity, look);
            let number = format!("{name} {}/s  ", text::rate(total.per_second));
            let used: usize = spans.iter().map(Span::width).sum();
            if used + number.len() <= width + 2 {
                spans.push(Span::styled(number, style));
            }
        }
        line(frame, area, 1, Line::from(spans));
        return;
    }
    for (at, (name, total, severity, more)) in (1..).zip(numbers) {
        let mut numbers = format!(
            "{name:>16} {:>6}/s  {:>6} in all",
            text::rate(total.per_second),
            text::count(total.count)
        );
        if numbers.len() + more.len() <= width {
            numbers.push_str(&more);
        }
        let numbers = format!("{numbers:<56} ");
        let room = width.saturating_sub(numbers.len());
        let trend = if room >= 12 {
            look.symbols.trend(&total.trend, room.min(SECONDS), SECONDS)
        } else {
            String::new()
        };
        let spans = vec![
            Span::styled(numbers, style(total, severity, look)),
            Span::styled(trend, style(total, severity, look)),
        ];
        line(frame, area, at, Line::from(spans));
    }
}

fn style(total: &Total, severity: Severity, look: &Look) -> Style {
    look.alarm((total.per_second > 0.0).then_some(severity))
}
