//! What lies over the sheet: the keys, or everything about one row.

use ratatui::{
    Frame,
    layout::Rect,
    text::Line,
    widgets::{Block, Clear, Paragraph, Wrap},
};

use super::{Look, Symbols};
use crate::top::{State, input::KEYS, printable};

pub(super) fn help(frame: &mut Frame<'_>, area: Rect, look: &Look) {
    let lines = KEYS.iter().map(|(keys, what)| format!("{keys:<15} {what}"));
    let lines: Vec<String> = lines.collect();
    over(frame, area, "keys", &lines, 0, look);
}

pub(super) fn detail(
    frame: &mut Frame<'_>,
    area: Rect,
    state: &State,
    scrolled: usize,
    look: &Look,
) {
    let lines = state.detail();
    let lines = if lines.is_empty() {
        vec!["it has gone".to_owned()]
    } else {
        lines
    };
    over(frame, area, state.sheet().name, &lines, scrolled, look);
}

fn over(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &'static str,
    lines: &[String],
    scrolled: usize,
    look: &Look,
) {
    let lines: Vec<Line<'static>> = lines
        .iter()
        .map(|line| Line::raw(printable(line).into_owned()))
        .collect();
    let longest = lines.iter().map(Line::width).max().unwrap_or(0);
    let wide = u16::try_from(longest + 4).unwrap_or(u16::MAX);
    let most = area.width.saturating_sub(4).max(1);
    let width = wide.clamp(most.min(30), most);
    let inner = usize::from(width.saturating_sub(4)).max(1);
    // Lines are broken between words: a long one may take one more than it fills.
    let taken = lines.iter().map(|line| match line.width().div_ceil(inner) {
        0 | 1 => 1,
        more => more + 1,
    });
    let height: usize = taken.sum();
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    let height = u16::try_from(height + 2).unwrap_or(u16::MAX);
    let height = height
        .min(area.height.saturating_sub(2))
        .max(3)
        .min(area.height);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let scrolled = u16::try_from(scrolled).unwrap_or(u16::MAX);
    let border = match look.symbols {
        Symbols::Unicode => ratatui::symbols::border::PLAIN,
        Symbols::Ascii => ASCII,
    };
    let block = Block::bordered()
        .border_set(border)
        .title(format!(" {title} "))
        .padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Clear, place);
    frame.render_widget(text.block(block).scroll((scrolled, 0)), place);
}

const ASCII: ratatui::symbols::border::Set<'static> = ratatui::symbols::border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};
