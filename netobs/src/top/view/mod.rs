//! Frames: what the state looks like on a terminal of a given size.

mod overlay;
mod sheet;
mod summary;
mod symbols;

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

pub use self::symbols::Symbols;
use super::{Overlay, State, printable, text};
use crate::audit::finding::Severity;

/// The least that something can be shown on.
pub const LEAST: (u16, u16) = (24, 6);

/// How frames look, besides their size.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Whether the terminal shows colours.
    pub colour: bool,
    /// What histories and marks are drawn with.
    pub symbols: Symbols,
    /// Where readings come from, in a word or two.
    pub source: String,
    /// The time of day.
    pub clock: String,
}

impl Look {
    fn alarm(&self, severity: Option<Severity>) -> Style {
        let colour = match severity {
            None => return Style::new(),
            Some(Severity::Critical) => Color::Red,
            Some(Severity::Warning) => Color::Yellow,
            Some(Severity::Info) => Color::Cyan,
        };
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn strong(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn picked(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn faint(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, state: &mut State, look: &Look) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("at least {}x{}", LEAST.0, LEAST.1);
        line(frame, area, 0, Line::raw(text));
        return;
    }
    let head = summary::height(area.height);
    let (head, rest) = split(area, head);
    let (sheets, rest) = split(rest, 1);
    let foot_height = if area.height < 10 { 1 } else { 2 };
    let (body, foot) = split(rest, rest.height.saturating_sub(foot_height));
    summary::draw(frame, head, state, look);
    line(frame, sheets, 0, sheet_names(state, look, sheets.width));
    sheet::draw(frame, body, state, look);
    footer(frame, foot, state, look);
    match state.overlay() {
        Overlay::None => {}
        Overlay::Help => overlay::help(frame, area, look),
        Overlay::Detail(scrolled) => overlay::detail(frame, area, state, scrolled, look),
    }
}

/// The first rows of an area, and the others.
fn split(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    (
        Rect { height, ..area },
        Rect {
            y: area.y + height,
            height: area.height - height,
            ..area
        },
    )
}

/// Draws one line of an area; what is not in the area is not drawn.
fn line(frame: &mut Frame<'_>, area: Rect, at: u16, line: Line<'_>) {
    if at < area.height {
        let place = Rect {
            y: area.y + at,
            height: 1,
            ..area
        };
        frame.render_widget(line, place);
    }
}

/// `1 Listeners 12  [2 Retransmits 3]  ...`, without numbers of rows or names where it is narrow.
fn sheet_names(state: &State, look: &Look, width: u16) -> Line<'static> {
    let tables = state.tables();
    let counts = [
        tables.listeners.len(),
        tables.retransmits.len(),
        tables.connects.len(),
        tables.resets.len(),
        tables.findings().count(),
    ];
    let names = |form: &dyn Fn(usize, &str, usize) -> String| -> Vec<String> {
        let sheets = super::sheet::SHEETS.iter().zip(counts).enumerate();
        sheets
            .map(|(at, (sheet, count))| {
                let text = form(at + 1, sheet.name, count);
                if at == state.sheet_number() {
                    format!("[{text}]")
                } else {
                    format!(" {text} ")
                }
            })
            .collect()
    };
    let mut shown = names(&|key, name, count| format!("{key} {name} {count}"));
    let fits = |shown: &[String]| {
        let length: usize = shown.iter().map(|name| name.chars().count() + 1).sum();
        length <= usize::from(width) + 1
    };
    if !fits(&shown) {
        shown = names(&|key, name, _| format!("{key} {name}"));
    }
    if !fits(&shown) {
        shown = names(&|key, name, _| format!("{key} {}", name.get(..3).unwrap_or(name)));
    }
    if !fits(&shown) {
        shown = names(&|key, _, _| key.to_string());
    }
    let mut spans = Vec::new();
    for (at, name) in shown.into_iter().enumerate() {
        let style = if at == state.sheet_number() {
            look.strong()
        } else {
            Style::new()
        };
        spans.push(Span::styled(name, style));
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}

/// The keys to begin with, as many as fit.
fn hints(width: u16) -> String {
    const KEYS: [&str; 7] = [
        "? help",
        "q quit",
        "/ filter",
        "s sort",
        "r reverse",
        "Space pause",
        "Enter detail",
    ];
    let mut text = String::new();
    for key in KEYS {
        if text.len() + 2 + key.len() > usize::from(width) {
            break;
        }
        if !text.is_empty() {
            text.push_str("  ");
        }
        text.push_str(key);
    }
    text
}

fn footer(frame: &mut Frame<'_>, area: Rect, state: &State, look: &Look) {
    let mut parts: Vec<Span<'_>> = Vec::new();
    let mut part = |text: String, style: Style| {
        if !parts.is_empty() {
            parts.push(Span::raw("  "));
        }
        parts.push(Span::styled(text, style));
    };
    if let Some(fault) = state.fault() {
        part(
            printable(fault).into_owned(),
            look.alarm(Some(Severity::Critical)),
        );
    }
    if state.is_paused() {
        part("PAUSED".to_owned(), look.strong());
    }
    let (shown, all) = state.counts();
    if state.is_typing() || !state.filter().is_empty() {
        let cursor = if state.is_typing() { "_" } else { "" };
        part(
            format!("/{}{cursor} ({shown} of {all})", state.filter()),
            look.strong(),
        );
    }
    if shown > 0 {
        part(format!("{}/{shown}", state.place()), Style::new());
    }
    let lost = state.tables().lost();
    let style = look.alarm((lost > 0).then_some(Severity::Warning));
    part(format!("{} lost", text::count(lost)), style);
    if let Some(worst) = state.tables().lost.iter().max_by_key(|lost| lost.count) {
        let text = format!("{} in {}", worst.reason, worst.probe);
        part(printable(&text).into_owned(), style);
    }
    let out = state.tables().rows_left_out;
    if out > 0 {
        part(
            format!("{out} rows left out"),
            look.alarm(Some(Severity::Warning)),
        );
    }
    if area.height > 1 {
        line(frame, area, 0, Line::from(parts));
        line(
            frame,
            area,
            1,
            Line::styled(hints(area.width), look.faint()),
        );
    } else {
        parts.push(Span::styled("  ? help", look.faint()));
        line(frame, area, 0, Line::from(parts));
    }
}
