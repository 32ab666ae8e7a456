//! Frames of `netobs top`, held against files: what the user sees, character by character.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step is a failed test"
)]

use std::{fmt::Write as _, fs, path::Path, sync::Arc, time::Duration};

use netobs::{
    audit::Severity,
    diagnose::{Diagnosis, Finding, Source},
    top::{
        Connected, Connects, Listener, Listening, Lost, MOST_ROWS, Reading, Reset, Retransmitted,
        Sockets, State, Who, action,
        sheet::SHEETS,
        view::{self, Look, Symbols},
    },
};
use netobs_common::connection::{ConnectFailure, Latencies};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Modifier,
};

/// A namespace's number, such as `lsns` shows.
const NETNS: u32 = 4_026_531_840;

fn who(process: &str, pod: &str) -> Who {
    let (namespace, pod) = pod.split_once('/').unwrap_or_default();
    Who {
        netns: Some(NETNS),
        process: process.to_owned(),
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        ..Who::default()
    }
}

fn listener(who: Who, address: &str, port: u16) -> Listener {
    Listener {
        who,
        address: address.parse().unwrap(),
        port,
    }
}

fn waits(buckets: &[(usize, u64)]) -> Latencies {
    let mut latencies = Latencies::default();
    for (place, count) in buckets {
        latencies.buckets[*place] = *count;
    }
    latencies
}

fn sockets(process: &str, role: &str, port: u16) -> Sockets {
    Sockets {
        who: who(process, ""),
        role: role.to_owned(),
        port,
    }
}

/// What a machine shows in its `second`-th second: nginx overflows from the 100th on.
fn machine(second: u64) -> Reading {
    let trouble = second.saturating_sub(100);
    let served = second * 40;
    let nginx = Listening {
        sockets: 2,
        queue: if trouble > 0 { 129 } else { 3 },
        peak: 129,
        limit: 128,
        syn_queue: 7,
        cut: Some(true),
        drops: trouble * trouble,
        overflows: trouble * trouble,
        drops_by: vec![("syn accept_queue_full".to_owned(), trouble * trouble)],
        accepts: served,
        latency: waits(&[(0, served * 9 / 10), (9, served / 10)]),
    };
    let quiet = |limit| Listening {
        sockets: 1,
        limit,
        cut: Some(false),
        ..Listening::default()
    };
    let mut failures = [0; ConnectFailure::COUNT];
    failures[ConnectFailure::Refused as usize] = trouble / 2;
    failures[ConnectFailure::TimedOut as usize] = 3;
    let curl = Connects {
        who: who("curl", "shop/cart-5f7c9"),
        port: 5432,
    };
    let reset = Reset {
        sockets: sockets("haproxy", "server", 8443),
        direction: "received".to_owned(),
        state: "ESTABLISHED".to_owned(),
        reason: "connection".to_owned(),
    };
    Reading {
        at: Duration::from_secs(second),
        listeners: [
            (
                listener(who("nginx", "shop/front-7d9f"), "0.0.0.0", 443),
                nginx,
            ),
            (listener(who("sshd", ""), "::", 22), quiet(128)),
            (listener(who("postgres", ""), "127.0.0.1", 5432), quiet(200)),
        ]
        .into(),
        retransmits: [
            (
                sockets("nginx", "server", 443),
                Retransmitted {
                    segments: [trouble, 12, 4, 0, trouble / 3, 0],
                    failures: 0,
                },
            ),
            (
                sockets("kubelet", "client", 6443),
                Retransmitted {
                    segments: [0, 0, 1, 2, 0, 0],
                    failures: 1,
                },
            ),
        ]
        .into(),
        connects: [(
            curl,
            Connected {
                waiting: 2,
                failures,
                latency: waits(&[(1, second), (11, 2)]),
            },
        )]
        .into(),
        resets: [(reset, 17)].into(),
        namespaces: 4,
        lost: Vec::new(),
        diagnosis: Some(Arc::new(diagnosis(trouble))),
        earlier: vec![Finding::new(
            "reset-by-peer",
            Severity::Info,
            "17 connections at port 8443 were reset by a health check",
        )],
    }
}

fn diagnosis(trouble: u64) -> Diagnosis {
    let mut finding = Finding::new(
        "accept-queue-overflow",
        Severity::Critical,
        "nginx turned away 400 connections at port 443: its accept queue was full",
    );
    finding.netns = Some(NETNS);
    finding.process = "nginx".to_owned();
    finding.container_id = "0123456789ab".to_owned();
    finding.events = 400;
    finding.evidence = vec!["400 SYNs were dropped, 400 of them by overflow".to_owned()];
    finding.cause =
        vec!["the limit is 128, which net.core.somaxconn set: listen() asked for 511".to_owned()];
    finding.remedy = vec!["sysctl -w net.core.somaxconn=511, then restart nginx".to_owned()];
    let mut minor = Finding::new(
        "retransmissions",
        Severity::Warning,
        "segments to 10.1.2.3 are lost",
    );
    minor.events = 12;
    Diagnosis {
        schema_version: 1,
        source: Source::Watched,
        since: None,
        until: None,
        events: None,
        window_seconds: 30.0,
        namespaces: 4,
        listeners: 3,
        findings: if trouble > 0 {
            vec![minor, finding]
        } else {
            Vec::new()
        },
        healthy: Vec::new(),
        not_seen: Vec::new(),
    }
}

/// After two minutes of that.
fn busy() -> State {
    let mut state = State::default();
    for second in 0..=120 {
        state.take(&machine(second));
    }
    state
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            character => KeyCode::Char(character),
        };
        if let Some(action) = action(KeyEvent::new(code, KeyModifiers::NONE), state) {
            state.act(action);
        }
    }
}

fn look() -> Look {
    Look {
        colour: true,
        symbols: Symbols::Unicode,
        source: "this machine".to_owned(),
        clock: "14:30:07 CET".to_owned(),
    }
}

fn terminal(state: &mut State, width: u16, height: u16, look: &Look) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| view::draw(frame, state, look))
        .unwrap();
    terminal
}

/// A frame as text; the columns at which it is marked stand below it.
fn frame(state: &mut State, width: u16, height: u16, look: &Look) -> String {
    let terminal = terminal(state, width, height, look);
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    let mut marked = String::new();
    for y in 0..height {
        let mut line = String::new();
        let mut skip = 0;
        for x in 0..width {
            let cell = &buffer[(x, y)];
            if skip > 0 {
                skip -= 1;
                continue;
            }
            line.push_str(cell.symbol());
            skip = ratatui::text::Span::raw(cell.symbol())
                .width()
                .saturating_sub(1);
        }
        writeln!(text, "{}", line.trim_end()).unwrap();
        if buffer[(0, y)].modifier.contains(Modifier::REVERSED) {
            writeln!(marked, "line {y} is marked").unwrap();
        }
    }
    text + &marked
}

/// Compares with a file under `tests/golden/top`, or writes it when `NETOBS_BLESS=1`.
fn golden(name: &str, text: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/top");
    let path = folder.join(name).with_extension("txt");
    if std::env::var_os("NETOBS_BLESS").is_some_and(|value| value == "1") {
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text, expected,
        "{name} differs; accept it with NETOBS_BLESS=1"
    );
}

/// The page shows a frame as it is, and says what each column means.
#[test]
fn the_page_is_of_this_view() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/top.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("```text\n").unwrap();
    let (shown, after) = rest.split_once("```\n").unwrap();
    let text = frame(&mut busy(), 160, 18, &look());
    let text = text.replace("line 8 is marked\n", "");
    if std::env::var_os("NETOBS_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, format!("{before}```text\n{text}```\n{after}")).unwrap();
    } else {
        assert_eq!(shown, text, "accept it with NETOBS_BLESS=1");
    }
    for (number, sheet) in (1..).zip(SHEETS) {
        let name = format!("| {number} {} |", sheet.name);
        assert!(page.contains(&name), "{name}");
        for column in sheet.columns {
            let title = format!("`{}`", column.title);
            assert!(page.contains(&title), "{title} of {}", sheet.name);
        }
    }
    let bound = format!("{},{:03} rows", MOST_ROWS / 1000, MOST_ROWS % 1000);
    assert!(page.contains(&bound), "{bound}");
}

#[test]
fn every_sheet() {
    let mut state = busy();
    for (key, name) in [
        ("1", "listeners"),
        ("2", "retransmits"),
        ("3", "connects"),
        ("4", "resets"),
        ("5", "findings"),
    ] {
        press(&mut state, key);
        golden(name, &frame(&mut state, 160, 24, &look()));
    }
}

#[test]
fn terminals_of_other_sizes() {
    let mut state = busy();
    golden("usual", &frame(&mut state, 80, 24, &look()));
    golden("narrow", &frame(&mut state, 44, 20, &look()));
    golden("short", &frame(&mut state, 80, 9, &look()));
    golden("least", &frame(&mut state, 24, 6, &look()));
    // Whatever the size: something, and no panic.
    for key in ["1", "5", "?", "\u{1b}\n"] {
        press(&mut state, key);
        for width in (1..30).chain([79, 200, 500]) {
            for height in (1..24).chain([100]) {
                frame(&mut state, width, height, &look());
            }
        }
    }
}

#[test]
fn nothing_to_show() {
    let mut state = State::default();
    golden("waiting", &frame(&mut state, 80, 12, &look()));
    state.take(&Reading::default());
    golden("empty", &frame(&mut state, 80, 24, &look()));
    press(&mut state, "5");
    golden("no-diagnosis", &frame(&mut state, 80, 12, &look()));
    state.complain("failed to connect to 127.0.0.1:10977".to_owned());
    golden("fault", &frame(&mut state, 80, 12, &look()));
}

#[test]
fn filtered_sorted_and_paused() {
    let mut state = busy();
    press(&mut state, "/port:22");
    golden("typing", &frame(&mut state, 100, 16, &look()));
    press(&mut state, "x\n");
    golden("filtered-out", &frame(&mut state, 100, 16, &look()));
    press(&mut state, "\u{1b}/pod:shop\n");
    golden("filtered", &frame(&mut state, 100, 16, &look()));
    press(&mut state, "\u{1b}ssssssss");
    golden("sorted", &frame(&mut state, 100, 16, &look()));
    press(&mut state, "rj");
    golden("reversed", &frame(&mut state, 100, 16, &look()));
    press(&mut state, " ");
    let before = frame(&mut state, 100, 16, &look());
    state.take(&machine(300));
    let after = frame(&mut state, 100, 16, &look());
    assert_eq!(before, after, "it stands still");
    golden("paused", &after);
}

#[test]
fn help_and_details() {
    let mut state = busy();
    press(&mut state, "?");
    golden("help", &frame(&mut state, 80, 24, &look()));
    press(&mut state, "\u{1b}\n");
    golden("detail", &frame(&mut state, 100, 24, &look()));
    press(&mut state, "\u{1b}5\n");
    golden("finding", &frame(&mut state, 80, 24, &look()));
    press(&mut state, "jjj");
    golden("finding-scrolled", &frame(&mut state, 60, 16, &look()));
}

#[test]
fn without_colours_and_without_blocks() {
    let mut state = busy();
    let plain = Look {
        colour: false,
        symbols: Symbols::Ascii,
        ..look()
    };
    let terminal = terminal(&mut state, 120, 24, &plain);
    let buffer = terminal.backend().buffer();
    let coloured = |cell: &&ratatui::buffer::Cell| {
        cell.fg != ratatui::style::Color::Reset || cell.bg != ratatui::style::Color::Reset
    };
    assert_eq!(buffer.content().iter().find(coloured), None);
    let text = frame(&mut state, 120, 24, &plain);
    assert!(text.is_ascii(), "{text}");
    golden("ascii", &text);
    press(&mut state, "?");
    assert!(frame(&mut state, 120, 24, &plain).is_ascii());
    // With colours, the row in trouble has one.
    press(&mut state, "?");
    let terminal = self::terminal(&mut state, 120, 24, &look());
    let buffer = terminal.backend().buffer();
    assert!(
        buffer
            .content()
            .iter()
            .any(|cell| cell.fg == ratatui::style::Color::Red)
    );
}

#[test]
fn hostile_names_stay_text() {
    let names = [
        "\u{1b}[2J\u{1b}[31mred",
        "a\nb\tc\r",
        "\u{202e}txet\u{2066}",
        "z\u{351}\u{35b}\u{200d}\u{200b}x",
        "\u{9b}5n\u{7f}\u{0}",
        "\u{6f22}\u{5b57}\u{6f22}\u{5b57}\u{6f22}\u{5b57}",
        "",
    ];
    let mut state = State::new("\u{1b}]0;x\u{7}");
    let mut reading = Reading::default();
    for (port, name) in (1..).zip(names) {
        let who = Who {
            pod: name.to_owned(),
            namespace: name.to_owned(),
            ..who(name, "")
        };
        reading.listeners.insert(
            listener(who, "::1", port),
            Listening {
                drops_by: vec![(name.to_owned(), 1)],
                ..Listening::default()
            },
        );
    }
    reading.lost = vec![Lost {
        probe: names[0].to_owned(),
        reason: names[1].to_owned(),
        count: 5,
    }];
    let mut findings = diagnosis(1);
    findings.findings[0].summary = names[0].to_owned();
    reading.diagnosis = Some(Arc::new(findings));
    state.take(&reading);
    state.complain(names[0].to_owned());
    let safe = |text: &str| {
        let bad = |c: char| {
            c != '\n' && (c.is_control() || "\u{202e}\u{2066}\u{200b}\u{200d}".contains(c))
        };
        assert!(!text.contains(bad), "{text:?}");
    };
    safe(&frame(&mut state, 100, 20, &look()));
    press(&mut state, "\u{1b}SSSSSSSS");
    let text = frame(&mut state, 100, 20, &look());
    safe(&text);
    golden("hostile", &text);
    for keys in ["\n", "\u{1b}G\n", "\u{1b}5", "\n", "\u{1b}/\u{9b}"] {
        press(&mut state, keys);
        safe(&frame(&mut state, 100, 20, &look()));
    }
}

#[test]
fn many_rows_scroll() {
    let mut state = State::default();
    let rows = (1..=1000).map(|port| (listener(who("many", ""), "::", port), Listening::default()));
    state.take(&Reading {
        listeners: rows.collect(),
        ..Reading::default()
    });
    press(&mut state, "SSSSSSSSG");
    let text = frame(&mut state, 80, 16, &look());
    assert!(text.contains("1000/1000"), "{text}");
    assert!(text.contains("\n 1000  ::"), "{text}");
    press(&mut state, "g");
    assert!(frame(&mut state, 80, 16, &look()).contains("\n    1  ::"));
}
