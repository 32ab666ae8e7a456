//! What keys mean.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{Overlay, State, text::is_printable};

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End.
    Quit,
    /// Stop the process, as a shell's job.
    Suspend,
    /// Out of what is in front; without that, no filter any more.
    Back,
    /// Show the keys, or no longer.
    Help,
    /// Show everything about the selected row.
    Detail,
    /// To this sheet.
    Sheet(usize),
    /// To the next.
    NextSheet,
    /// To the one before.
    SheetBefore,
    /// Selects so many rows further down.
    Move(isize),
    /// The same, pages.
    Page(isize),
    /// To the first row.
    First,
    /// To the last.
    Last,
    /// Sort by the next column.
    SortNext,
    /// By the one before.
    SortBefore,
    /// The other way round.
    Reverse,
    /// Let what is shown stand still, or no longer.
    Pause,
    /// Begin to type a filter.
    Filter,
    /// A character of it.
    Type(char),
    /// Its last character less.
    Rub,
    /// All of it.
    RubAll,
    /// It is typed.
    Done,
}

/// What the help shows: keys, and what they do.
pub const KEYS: [(&str, &str); 13] = [
    ("1 - 5, Tab", "to a sheet, to the next"),
    ("Up, Down, j, k", "select a row; also PgUp, PgDn, Home, End"),
    ("Enter", "everything about the selected row"),
    ("s, S", "sort by the next column, by the one before"),
    ("r", "sort the other way round"),
    ("/", "filter: words that a row must have, such as nginx"),
    ("", "  process: pod: container: before a word, port:443,"),
    ("", "  netns:4026531840 look there only"),
    ("Esc", "back; without anything in front, no filter"),
    ("Space, p", "pause: what is shown stands still"),
    ("Ctrl-Z", "suspend; fg comes back"),
    ("?", "this help"),
    ("q, Ctrl-C", "quit"),
];

/// What a key means now; `None` for nothing.
#[must_use]
pub fn action(key: KeyEvent, state: &State) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Quit),
            KeyCode::Char('z') => Some(Action::Suspend),
            KeyCode::Char('u') if state.is_typing() => Some(Action::RubAll),
            KeyCode::Char('h') if state.is_typing() => Some(Action::Rub),
            _ => None,
        };
    }
    if state.is_typing() {
        return typed(key.code);
    }
    let in_front = state.overlay() != Overlay::None;
    Some(match key.code {
        KeyCode::Char('q') if in_front => Action::Back,
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Esc => Action::Back,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Action::Help,
        KeyCode::Enter if in_front => Action::Back,
        KeyCode::Enter => Action::Detail,
        KeyCode::Char(digit @ '1'..='5') => {
            Action::Sheet(usize::try_from(digit.to_digit(10)?).ok()?.checked_sub(1)?)
        }
        KeyCode::Tab | KeyCode::Right => Action::NextSheet,
        KeyCode::BackTab | KeyCode::Left => Action::SheetBefore,
        KeyCode::Down | KeyCode::Char('j') => Action::Move(1),
        KeyCode::Up | KeyCode::Char('k') => Action::Move(-1),
        KeyCode::PageDown => Action::Page(1),
        KeyCode::PageUp => Action::Page(-1),
        KeyCode::Home | KeyCode::Char('g') => Action::First,
        KeyCode::End | KeyCode::Char('G') => Action::Last,
        KeyCode::Char('s' | '>') => Action::SortNext,
        KeyCode::Char('S' | '<') => Action::SortBefore,
        KeyCode::Char('r') => Action::Reverse,
        KeyCode::Char(' ' | 'p') => Action::Pause,
        KeyCode::Char('/') => Action::Filter,
        _ => return None,
    })
}

/// A key while a filter is typed.
fn typed(code: KeyCode) -> Option<Action> {
    Some(match code {
        KeyCode::Enter => Action::Done,
        KeyCode::Esc => Action::Back,
        KeyCode::Backspace => Action::Rub,
        KeyCode::Down => Action::Move(1),
        KeyCode::Up => Action::Move(-1),
        KeyCode::Char(character) if is_printable(character) => Action::Type(character),
        _ => return None,
    })
}
