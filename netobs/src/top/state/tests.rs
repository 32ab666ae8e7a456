//! Keys in, what is shown out.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::top::{Listener, Listening, Who, action};

fn reading(second: u64, rows: &[(&str, u16, u64)]) -> Reading {
    let listeners = rows.iter().map(|(process, port, drops)| {
        let who = Who {
            netns: Some(1),
            process: (*process).to_owned(),
            ..Who::default()
        };
        let listener = Listener {
            who,
            address: "0.0.0.0".parse().unwrap(),
            port: *port,
        };
        let listening = Listening {
            sockets: 1,
            drops: *drops,
            ..Listening::default()
        };
        (listener, listening)
    });
    Reading {
        at: Duration::from_secs(second),
        listeners: listeners.collect(),
        ..Reading::default()
    }
}

fn press(state: &mut State, keys: &str) -> Then {
    let mut then = Then::Draw;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            '\u{2193}' => KeyCode::Down,
            '\u{2191}' => KeyCode::Up,
            character => KeyCode::Char(character),
        };
        if let Some(action) = action(KeyEvent::new(code, KeyModifiers::NONE), state) {
            then = state.act(action);
        }
    }
    then
}

fn ports(state: &mut State) -> Vec<String> {
    let (rows, _) = state.page(100);
    rows.iter()
        .map(|row| row.cells[0].text().into_owned())
        .collect()
}

fn three() -> State {
    let mut state = State::default();
    state.take(&reading(0, &[("a", 1, 5), ("b", 2, 9), ("c", 3, 7)]));
    state
}

#[test]
fn the_worst_comes_first_and_every_column_sorts() {
    let mut state = three();
    assert_eq!(ports(&mut state), ["2", "3", "1"]);
    assert!(state.falls());
    press(&mut state, "r");
    assert_eq!(ports(&mut state), ["1", "3", "2"]);
    assert!(!state.falls());
    for _ in 0..state.sheet().columns.len() {
        press(&mut state, "s");
        assert_eq!(ports(&mut state).len(), 3);
    }
    assert_eq!(state.sorting(), (8, false), "once round");
    press(&mut state, "SSSSSSSS");
    assert_eq!(state.sorting(), (0, false));
    assert_eq!(ports(&mut state), ["1", "2", "3"]);
    assert!(!state.falls());
}

#[test]
fn a_filter_is_typed_rubbed_out_and_given_up() {
    let mut state = three();
    press(&mut state, "/port:3q");
    assert!(state.is_typing());
    assert!(ports(&mut state).is_empty(), "q is a letter of it");
    press(&mut state, "\u{8}");
    assert_eq!(ports(&mut state), ["3"]);
    assert_eq!(state.counts(), (1, 3));
    press(&mut state, "\n");
    assert!(!state.is_typing());
    assert_eq!(press(&mut state, "\u{1b}"), Then::Draw);
    assert_eq!(state.filter(), "");
    assert_eq!(ports(&mut state).len(), 3);
    press(&mut state, "/");
    press(&mut state, &"x".repeat(500));
    assert_eq!(state.filter().len(), filter::MOST);
    assert_eq!(State::new("a\u{1b}[2Jb").filter(), "a[2Jb");
}

#[test]
fn the_selected_row_stays_selected_wherever_it_goes() {
    let mut state = three();
    press(&mut state, "j");
    assert_eq!(state.selected().unwrap().cells[0].text(), "3");
    state.take(&reading(1, &[("a", 1, 5), ("b", 2, 9), ("c", 3, 99)]));
    assert_eq!(state.selected().unwrap().cells[0].text(), "3");
    assert_eq!(state.place(), 1);
    press(&mut state, "G");
    assert_eq!(state.place(), 3);
    // It goes: what is in its place is selected.
    state.take(&reading(2, &[("b", 2, 9), ("c", 3, 99)]));
    assert_eq!(state.place(), 2);
    press(&mut state, "kkkkk");
    assert_eq!(state.place(), 1);
    state.take(&reading(3, &[]));
    assert_eq!((state.place(), state.counts()), (0, (0, 0)));
    press(&mut state, "jG\n");
    assert_eq!(state.overlay(), Overlay::None);
}

#[test]
fn what_nobody_selected_stays_at_the_top() {
    let mut state = three();
    state.take(&reading(1, &[("a", 1, 50), ("b", 2, 9), ("c", 3, 7)]));
    assert_eq!(state.selected().unwrap().cells[0].text(), "1");
    assert_eq!(state.place(), 1);
}

#[test]
fn a_page_follows_the_selection() {
    let mut state = State::default();
    let rows: Vec<_> = (1..=100).map(|port| ("p", port, 0)).collect();
    state.take(&reading(0, &rows));
    press(&mut state, "SSSSSSSS"); // by port
    let seen = |state: &mut State| {
        let (rows, selected) = state.page(10);
        let first = rows[0].cells[0].text().into_owned();
        (first, selected, rows.len())
    };
    assert_eq!(seen(&mut state), ("1".to_owned(), 0, 10));
    state.act(Action::Page(1));
    assert_eq!(seen(&mut state), ("2".to_owned(), 9, 10));
    state.act(Action::Last);
    assert_eq!(seen(&mut state), ("91".to_owned(), 9, 10));
    state.act(Action::Page(-1));
    assert_eq!(seen(&mut state), ("90".to_owned(), 0, 10));
    state.act(Action::First);
    assert_eq!(seen(&mut state), ("1".to_owned(), 0, 10));
}

#[test]
fn a_pause_stops_the_picture_and_not_the_histories() {
    let mut state = three();
    press(&mut state, " ");
    state.take(&reading(1, &[("a", 1, 5), ("b", 2, 9), ("c", 3, 8)]));
    state.take(&reading(2, &[("a", 1, 5), ("b", 2, 9), ("c", 3, 20)]));
    assert!(state.is_paused());
    assert_eq!(state.tables().drops.count, 21);
    // What stands still can still be sorted.
    press(&mut state, "r");
    assert_eq!(ports(&mut state), ["1", "3", "2"]);
    press(&mut state, "rp");
    assert_eq!(ports(&mut state), ["3", "2", "1"]);
    assert_eq!(state.tables().drops.trend, [0, 1, 12]);
}

#[test]
fn overlays_come_and_go() {
    let mut state = three();
    press(&mut state, "?");
    assert_eq!(state.overlay(), Overlay::Help);
    assert_eq!(press(&mut state, "q"), Then::Draw);
    assert_eq!(state.overlay(), Overlay::None);
    press(&mut state, "\n");
    assert_eq!(state.overlay(), Overlay::Detail(0));
    assert!(
        state
            .detail()
            .iter()
            .any(|line| line.contains("process    b"))
    );
    state.act(Action::Move(-3));
    state.act(Action::Move(2));
    assert_eq!(state.overlay(), Overlay::Detail(2));
    state.act(Action::Last);
    assert_eq!(state.overlay(), Overlay::Detail(state.detail().len() - 1));
    press(&mut state, "\u{1b}");
    assert_eq!(state.overlay(), Overlay::None);
    press(&mut state, "\t\t");
    assert_eq!(state.sheet().name, "Connects");
    press(&mut state, "5");
    assert_eq!(state.sheet().name, "Findings");
    assert_eq!(press(&mut state, "q"), Then::Quit);
    let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
    press(&mut state, "/");
    assert_eq!(action(control('c'), &state), Some(Action::Quit));
    assert_eq!(action(control('z'), &state), Some(Action::Suspend));
    assert_eq!(action(control('u'), &state), Some(Action::RubAll));
    assert_eq!(action(control('x'), &state), None);
}
