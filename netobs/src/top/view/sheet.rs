//! A sheet as a table that fits.

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{Look, line};
use crate::top::{
    State,
    model::SECONDS,
    sheet::{Cell, Column, Row},
};

/// Between columns.
const GAP: usize = 2;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &mut State, look: &Look) {
    let sheet = state.sheet();
    let (sorted_by, _) = state.sorting();
    let falls = state.falls();
    let (rows, selected) = state.page(usize::from(area.height.saturating_sub(1)));
    let columns = fit(sheet.columns, sorted_by, &rows, usize::from(area.width));
    let head = columns.iter().map(|(at, width)| {
        let column = sheet.columns.get(*at);
        let title = column.map_or("", |column| column.title);
        let title = if *at == sorted_by {
            format!("{}{title}", look.symbols.sorted(falls))
        } else {
            title.to_owned()
        };
        pad(&title, *width, column.is_some_and(|column| column.right))
    });
    let head = head.collect::<Vec<_>>().join(&" ".repeat(GAP));
    line(frame, area, 0, Line::styled(head, look.strong()));
    for (at, (place, row)) in (1..).zip(rows.iter().enumerate()) {
        let mut style = look.alarm(row.alarm);
        if place == selected {
            style = style.patch(look.picked());
        }
        let text = cells(sheet.columns, &columns, row, look);
        line(frame, area, at, to_the_edge(text, area.width, style));
    }
    if rows.is_empty() {
        let text = match (state.has_read(), state.counts()) {
            (false, _) => "",
            (true, (_, 0)) => empty(state),
            (true, _) => "the filter lets no row through",
        };
        line(frame, area, 2, Line::raw(text));
    }
}

fn empty(state: &State) -> &'static str {
    let findings = state.sheet_number() + 1 == crate::top::sheet::SHEETS.len();
    if findings && state.tables().diagnosis.is_none() {
        "this source makes no diagnosis: netobs diagnose does"
    } else {
        state.sheet().empty
    }
}

fn cells(columns: &[Column], fitted: &[(usize, usize)], row: &Row, look: &Look) -> String {
    let mut text = String::new();
    for (number, (at, width)) in fitted.iter().enumerate() {
        if number > 0 {
            text.push_str("  ");
        }
        let right = columns.get(*at).is_some_and(|column| column.right);
        text.push_str(&match row.cells.get(*at) {
            Some(Cell::Trend(trend)) => {
                pad(&look.symbols.trend(trend, *width, SECONDS), *width, false)
            }
            Some(cell) => pad(&cell.text(), *width, right),
            None => " ".repeat(*width),
        });
    }
    text
}

/// So that a selected line is marked to the edge.
fn to_the_edge(text: String, width: u16, style: Style) -> Line<'static> {
    let room = usize::from(width).saturating_sub(Span::raw(text.as_str()).width());
    Line::styled(text + &" ".repeat(room), style)
}

/// The text in exactly this many columns of the terminal; what is cut off is marked by `~`.
fn pad(text: &str, width: usize, right: bool) -> String {
    let length = Span::raw(text).width();
    if length <= width {
        let blanks = " ".repeat(width - length);
        return if right {
            blanks + text
        } else {
            text.to_owned() + &blanks
        };
    }
    let mut cut = String::new();
    let mut used = 0;
    for character in text.chars() {
        let more = Span::raw(character.encode_utf8(&mut [0; 4]) as &str).width();
        if used + more + 1 > width {
            break;
        }
        cut.push(character);
        used += more;
    }
    cut.push('~');
    cut + &" ".repeat(width.saturating_sub(used + 1))
}

/// The columns that fit, by place, with their widths. What is too much goes by rank, the one that is
/// sorted by never; room that is left goes to those that have use for it, from the left.
fn fit(columns: &[Column], sorted_by: usize, rows: &[&Row], width: usize) -> Vec<(usize, usize)> {
    let mut fitted: Vec<(usize, usize, usize)> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let mark = usize::from(at == sorted_by);
            let longest = rows.iter().filter_map(|row| row.cells.get(at));
            let longest = longest.map(|cell| match cell {
                Cell::Trend(_) => column.most,
                cell => Span::raw(cell.text()).width(),
            });
            let title = column.title.len() + mark;
            let wish = longest.max().unwrap_or(0).max(title);
            let least = column.least.min(wish).max(title);
            (at, least, wish.min(column.most).max(least))
        })
        .collect();
    let rank = |at: usize| columns.get(at).map_or(0, |column| column.rank);
    let needed = |fitted: &[(usize, usize, usize)]| {
        let gaps = GAP * fitted.len().saturating_sub(1);
        fitted.iter().map(|(_, least, _)| least).sum::<usize>() + gaps
    };
    while needed(&fitted) > width {
        let candidates = fitted.iter().enumerate();
        // Of the same rank, the one to the right.
        let worst = candidates
            .filter(|(_, (at, ..))| *at != sorted_by)
            .max_by_key(|(_, (at, ..))| rank(*at))
            .map(|(place, _)| place);
        let Some(worst) = worst else { break };
        fitted.remove(worst);
    }
    let mut left = width.saturating_sub(needed(&fitted));
    fitted
        .into_iter()
        .map(|(at, least, wish)| {
            let more = wish.saturating_sub(least).min(left);
            left -= more;
            (at, least + more)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::top::sheet::SHEETS;

    #[test]
    fn columns_go_by_rank_and_the_sorted_one_stays() {
        let sheet = SHEETS[0];
        let all = fit(sheet.columns, 8, &[], 300);
        assert_eq!(all.len(), sheet.columns.len());
        let narrow = fit(sheet.columns, 4, &[], 50);
        let names: Vec<_> = narrow
            .iter()
            .map(|(at, _)| sheet.columns[*at].title)
            .collect();
        assert_eq!(
            names,
            [
                "PORT", "PROCESS", "NETNS", "QUEUE", "PEAK", "LIMIT", "DROPS"
            ]
        );
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(pad("\u{6f22}\u{5b57}", 6, true), "  \u{6f22}\u{5b57}");
        assert_eq!(pad("\u{6f22}\u{5b57}", 4, true), "\u{6f22}\u{5b57}");
        assert_eq!(pad("\u{6f22}\u{5b57}x", 4, false), "\u{6f22}~ ");
        assert_eq!(pad("abcdef", 4, true), "abc~");
    }

    proptest! {
        #[test]
        fn padded_text_is_as_wide_as_its_column(text in ".*", width in 1_usize..40, right: bool) {
            let text = crate::top::printable(&text);
            prop_assert_eq!(Span::raw(pad(&text, width, right)).width(), width);
        }
    }
}
