//! Lines of every kind of event: as JSON by the published schema, and as columns; and the queue
//! between the ring and a slow output.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../src/audit/tests/schema.rs"]
mod schema_check;

use std::{
    io::{self, Write},
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, atomic::Ordering::Relaxed},
};

use jiff::tz::{Offset, TimeZone};
use netobs::{
    sys::cgroup::{ContainerId, Workload},
    trace::{Columns, Format, Line, Lines, Outlet, Owner, Style, Tally, queue, schema},
};
use netobs_common::{
    connection::ConnectFailure,
    dns::{Lookup, QUESTION_BYTES},
    event::{
        Accept, Connect, DNS_ANSWERED, DROP_SEEN, Dns, Endpoints, Event, EventHeader, EventKind,
        LISTENER_CLOSED, LISTENER_OPENED, ListenDrop, ListenerChange, NO_RESET_REASON, Reset,
        Retransmit,
    },
    kernel::NO_REASON,
};
use serde_json::{Value, json};

use self::schema_check::violations;

const NETNS: u32 = 4_026_532_000;
/// 2026-11-21T14:25:07.123456789 in UTC.
const WALL_NS: u64 = 1_795_271_107_123_456_789;

fn v4(address: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&address);
    bytes
}

fn header(kind: EventKind) -> EventHeader {
    EventHeader {
        ktime_ns: 17_000_000_001,
        kind: kind as u32,
        netns: NETNS,
    }
}

fn ends() -> Endpoints {
    Endpoints {
        local_address: v4([10, 0, 0, 1]),
        remote_address: v4([10, 0, 0, 2]),
        local_port: 443,
        remote_port: 50_000,
        family: 2,
        reserved: 0,
    }
}

/// One event of each kind; a new kind does not compile without one.
fn sample(kind: EventKind) -> Event {
    match kind {
        EventKind::Retransmit => Event::Retransmit(Retransmit {
            header: header(kind),
            sk: 0xffff_8880_1234_5678,
            ends: ends(),
            owner: Default::default(),
            age_ns: 0,
            bytes_acked: 10,
            bytes_received: 20,
            segments: 2,
            err: 0,
            total_retrans: 5,
            srtt_us: 1500,
            snd_cwnd: 10,
            kind: 1,
            role: 0,
            state: 1,
            timeouts: 0,
        }),
        EventKind::ListenDrop => Event::ListenDrop(ListenDrop {
            header: header(kind),
            sk: 7,
            ends: ends(),
            owner: OWNER,
            ack_backlog: 129,
            max_ack_backlog: 128,
            drops: 3,
            reason: NO_REASON,
            stage: 1,
            cause: 0,
            method: DROP_SEEN,
            reserved: [0; 5],
        }),
        EventKind::Listener => Event::Listener(listener(7, [0; 4], b"nginx")),
        EventKind::Connect => Event::Connect(Connect {
            header: header(kind),
            sk: 8,
            ends: ends(),
            owner: OWNER,
            latency_ns: 3_100_000,
            syn_retransmits: 1,
            err: 110,
            failure: ConnectFailure::TimedOut as u8,
            reserved: [0; 7],
        }),
        EventKind::Accept => Event::Accept(Accept {
            header: header(kind),
            sk: 9,
            ends: ends(),
            owner: OWNER,
            latency_ns: 1_000,
        }),
        EventKind::Reset => Event::Reset(Reset {
            header: header(kind),
            sk: 0,
            ends: ends(),
            owner: OWNER,
            age_ns: 5_000_000,
            idle_ns: 0,
            bytes_acked: 1,
            bytes_received: 2,
            reason: NO_RESET_REASON,
            class: 1,
            direction: 0,
            role: 0,
            state: 0,
        }),
        EventKind::Dns => Event::Dns(lookup(b"\x07example\x04test\0\0\x1c\0\x01")),
    }
}

fn lookup(asked: &[u8]) -> Dns {
    let mut question = [0; QUESTION_BYTES];
    question[..asked.len()].copy_from_slice(asked);
    Dns {
        header: header(EventKind::Dns),
        latency_ns: 3_200_000_000,
        lookup: Lookup {
            owner: OWNER,
            ends: ends(),
            sends: 2,
            question_bytes: u16::try_from(asked.len()).unwrap(),
            question,
            ..Lookup::EMPTY
        },
        outcome: DNS_ANSWERED,
        answer_flags: 0x8183,
        answers: 0,
        reserved: 0,
    }
}

#[test]
fn a_slow_lookup_says_what_was_asked_and_answered() {
    let line = shown(&sample(EventKind::Dns));
    let json = serde_json::to_value(&line).unwrap();
    let detail = &json["detail"];
    assert_eq!(detail["outcome"], "answered");
    assert_eq!(detail["question"], "example.test");
    assert_eq!(detail["type"], "AAAA");
    assert_eq!(detail["response_code"], "NXDOMAIN");
    assert_eq!(detail["latency_us"], 3_200_000);
    assert_eq!(detail["queries"], 2);
}

#[test]
fn a_hostile_question_is_no_text() {
    for asked in [&b"\xc0\x0c\0\x01\0\x01"[..], b"\x3fshort", b""] {
        let line = shown(&Event::Dns(lookup(asked)));
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!(json["detail"]["question"], Value::Null);
    }
    let escaped = shown(&Event::Dns(lookup(b"\x02\x1b\n\0\0\x01\0\x01")));
    let json = serde_json::to_value(&escaped).unwrap();
    assert_eq!(json["detail"]["question"], "\\027\\010");
}

const OWNER: netobs_common::owner::Owner = netobs_common::owner::Owner {
    cgroup: 77,
    net: 0,
    netns: NETNS,
    pid: 4711,
    comm: *b"nginx\0\0\0\0\0\0\0\0\0\0\0",
};

fn listener(sk: u64, address: [u8; 4], name: &[u8]) -> ListenerChange {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    ListenerChange {
        header: header(EventKind::Listener),
        sk,
        owner: netobs_common::owner::Owner { comm, ..OWNER },
        local_address: v4(address),
        local_port: 443,
        family: 2,
        change: LISTENER_OPENED,
    }
}

/// Everything runs in one container.
fn lines() -> Lines {
    let container = ContainerId::from_hex(&"0123456789abcdef".repeat(4));
    let workload = move |cgroup, _| match cgroup {
        77 => Workload::new(container, None),
        _ => Workload::default(),
    };
    Lines::new(TimeZone::fixed(Offset::constant(1)), Box::new(workload))
}

fn shown(event: &Event) -> Line {
    let mut lines = lines();
    lines.learn(&sample(EventKind::Listener));
    lines.line(event, Some(WALL_NS))
}

#[test]
fn every_kind_keeps_to_the_schema() {
    let schema = schema();
    for kind in EventKind::ALL {
        let event = sample(*kind);
        for line in [shown(&event), lines().line(&event, None)] {
            let value = serde_json::to_value(&line).unwrap();
            assert_eq!(
                violations(&schema, &value),
                Vec::<String>::new(),
                "{value:#}"
            );
        }
        // Numbers that mean nothing are null, not a panic.
        let mut wild = event.as_bytes().to_vec();
        wild[16..].fill(0xff);
        let wild = Event::decode(&wild).unwrap();
        let value = serde_json::to_value(shown(&wild)).unwrap();
        assert_eq!(
            violations(&schema, &value),
            Vec::<String>::new(),
            "{value:#}"
        );
    }
}

#[test]
fn the_schema_refuses_what_it_does_not_promise() {
    let schema = schema();
    let good = serde_json::to_value(shown(&sample(EventKind::Retransmit))).unwrap();
    let spoilt = [
        ("/event", json!("retransmitt")),
        ("/schema_version", json!(2)),
        ("/netns", json!(-1)),
        ("/local/port", json!(65_536)),
        ("/detail", json!({})),
        ("/detail/type", json!("slow")),
        ("/owner", json!({"process": "x"})),
    ];
    for (pointer, value) in spoilt {
        let mut line = good.clone();
        *line.pointer_mut(pointer).unwrap() = value;
        assert!(!violations(&schema, &line).is_empty(), "{pointer}");
    }
}

#[test]
fn a_line_says_who_and_with_whom() {
    let line = shown(&sample(EventKind::Retransmit));
    let mut value = serde_json::to_value(&line).unwrap();
    let id = value.pointer_mut("/socket/id").unwrap().take();
    assert_eq!(id.as_str().unwrap().len(), 16);
    assert!(
        !id.as_str().unwrap().contains("12345678"),
        "an address of the kernel"
    );
    let want = json!({
        "schema_version": 1,
        "time": "2026-11-21T15:25:07.123456+01:00",
        "ktime_ns": 17_000_000_001_u64,
        "event": "retransmit",
        "method": "event",
        "netns": NETNS,
        "socket": { "id": null, "state": "ESTABLISHED", "role": "server" },
        "local": { "address": "10.0.0.1", "port": 443 },
        "peer": { "address": "10.0.0.2", "port": 50_000 },
        "owner": { "pid": 4711, "process": "nginx", "container_id": "0123456789ab",
                   "pod_uid": null },
        "listener": { "address": "0.0.0.0", "port": 443 },
        "detail": {
            "type": "fast", "segments": 2, "error": null, "total_retransmits": 5,
            "timeouts": null, "srtt_us": 1500, "cwnd_segments": 10, "age_us": null,
            "bytes_acked": 10, "bytes_received": 20,
        },
    });
    assert_eq!(value, want);
    let text = serde_json::to_string(&line).unwrap();
    assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
}

/// What an agent sends is made of events again, by who judges them.
#[test]
fn a_line_is_made_back_into_its_event() {
    for kind in EventKind::ALL {
        let line = shown(&sample(*kind));
        let text = serde_json::to_string(&line).unwrap();
        let line: Line = serde_json::from_str(&text).unwrap();
        let recorded = line.recorded().unwrap();
        // The line has microseconds.
        assert_eq!(recorded.wall_ns, WALL_NS / 1_000 * 1_000);
        let container = recorded.workload.container().map(|id| id.to_string());
        assert_eq!(container.as_deref(), Some("0123456789ab"), "{kind:?}");
        let again = lines().line(&recorded.event, Some(recorded.wall_ns));
        assert_eq!(again.event, line.event);
        assert_eq!((again.ktime_ns, &again.time), (line.ktime_ns, &line.time));
        assert_eq!((again.local, again.peer), (line.local, line.peer));
        assert_eq!((again.netns, &again.method), (line.netns, &line.method));
        assert_eq!(again.socket.role, line.socket.role);
        assert_eq!(again.socket.state, line.socket.state);
        let pid = |line: &Line| line.owner.as_ref().map(|it| (it.pid, it.process.clone()));
        assert_eq!(pid(&again), pid(&line));
        for (name, value) in line.detail.iter() {
            // Only that there was one is kept.
            if name != "error" {
                assert_eq!(again.detail.get(name), Some(value), "{kind:?} {name}");
            }
        }
    }
    let mut unknown = shown(&sample(EventKind::Accept));
    unknown.event = "tomorrow".into();
    assert!(unknown.recorded().is_none());
}

#[test]
fn filters_see_the_same_in_an_event_and_in_its_line() {
    for kind in EventKind::ALL {
        let mut lines = lines();
        lines.learn(&sample(EventKind::Listener));
        let event = sample(*kind);
        let line = lines.line(&event, None);
        assert_eq!(lines.subject(&event), line.subject());
        assert_eq!(line.subject().pid, Some(4711));
    }
}

#[test]
fn the_listener_of_the_address_comes_before_that_of_any() {
    let mut lines = lines();
    let event = sample(EventKind::Retransmit);
    let owner = |lines: &mut Lines| lines.line(&event, None).owner.map(|owner| owner.process);
    assert_eq!(owner(&mut lines), None);
    lines.learn(&Event::Listener(listener(1, [10, 0, 0, 1], b"own")));
    lines.learn(&Event::Listener(listener(2, [0; 4], b"any")));
    lines.learn(&Event::Listener(listener(3, [10, 0, 0, 9], b"other")));
    assert_eq!(owner(&mut lines).as_deref(), Some("own"));
    let closed = ListenerChange {
        change: LISTENER_CLOSED,
        ..listener(1, [10, 0, 0, 1], b"")
    };
    // What comes after its end is still its own.
    lines.learn(&Event::Listener(closed));
    assert_eq!(owner(&mut lines).as_deref(), Some("own"));
    lines.learn(&Event::Listener(listener(4, [10, 0, 0, 1], b"next")));
    assert_eq!(owner(&mut lines).as_deref(), Some("next"));
}

#[test]
fn columns_line_up_and_are_cut() {
    let style = Style::default();
    let mut columns = Columns::new(style);
    let head = columns.head().to_owned();
    let row = columns
        .row(&shown(&sample(EventKind::Retransmit)))
        .to_owned();
    assert_eq!(
        row,
        "15:25:07.123456  retransmit   nginx/4711      10.0.0.1:443           10.0.0.2:50000         \
         4026532000  fast segments=2 srtt_us=1500 cwnd=10\n"
    );
    for (name, value) in [
        ("EVENT", "retransmit"),
        ("LOCAL", "10.0.0.1"),
        ("DETAIL", "fast"),
    ] {
        assert_eq!(head.find(name), row.find(value), "{name}");
    }
    let mut narrow = Columns::new(Style {
        width: Some(40),
        ..style
    });
    assert_eq!(narrow.head().trim_end().chars().count().max(40), 40);
    let row = narrow
        .row(&shown(&sample(EventKind::ListenDrop)))
        .to_owned();
    assert_eq!(row, "15:25:07.123456  listen-drop  nginx/4711\n");
}

#[test]
fn a_name_cannot_command_the_terminal() {
    let mut line = shown(&sample(EventKind::Retransmit));
    line.owner = Some(Owner {
        pid: None,
        process: "a\u{1b}[31m\n\u{9b}b".to_owned(),
        container_id: None,
        pod_uid: None,
    });
    let mut columns = Columns::new(Style {
        colour: true,
        dates: true,
        ..Style::default()
    });
    let row = columns.row(&line).to_owned();
    assert!(
        row.starts_with("2026-11-21T15:25:07.123456  \u{1b}[33mretransmit \u{1b}[0m"),
        "{row:?}"
    );
    assert_eq!(row.matches(char::is_control).count(), 3, "{row:?}");
}

#[test]
fn lines_of_a_newer_agent_are_shown_all_the_same() {
    let mut value = serde_json::to_value(shown(&sample(EventKind::Retransmit))).unwrap();
    value["event"] = "quic-loss".into();
    value["detail"] = json!({ "packets": 3, "why": "x", "none": null });
    value["new"] = Value::Null;
    let line: Line = serde_json::from_value(value).unwrap();
    let mut columns = Columns::new(Style::default());
    assert!(columns.row(&line).ends_with("  packets=3 why=x\n"));
}

#[test]
fn addresses_of_both_families() {
    let mut event = Retransmit {
        ends: Endpoints {
            family: 10,
            local_address: "::ffff:10.0.0.1"
                .parse::<std::net::Ipv6Addr>()
                .unwrap()
                .octets(),
            remote_address: "2001:db8::1"
                .parse::<std::net::Ipv6Addr>()
                .unwrap()
                .octets(),
            ..ends()
        },
        ..match sample(EventKind::Retransmit) {
            Event::Retransmit(event) => event,
            _ => unreachable!(),
        }
    };
    event.header.netns = 0;
    let line = lines().line(&Event::Retransmit(event), None);
    assert_eq!(
        line.local.unwrap().address,
        "10.0.0.1".parse::<IpAddr>().unwrap()
    );
    assert_eq!(line.peer.unwrap().to_string(), "[2001:db8::1]:50000");
    assert_eq!(line.netns, None);
}

/// An output that stands still until it is let go.
#[derive(Clone, Default)]
struct Slow(Arc<(Mutex<bool>, Condvar)>, Arc<Mutex<Vec<u8>>>);

impl Slow {
    fn let_go(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut going = self.0.0.lock().unwrap();
        while !*going {
            going = self.0.1.wait(going).unwrap();
        }
        self.1.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A second of the highest rate that is promised, and more: nothing waits for the output, and all
/// numbers add up.
#[test]
fn a_slow_output_holds_nobody_up_and_is_counted() {
    const EVENTS: u64 = 150_000;
    let slow = Slow::default();
    let tally = Arc::new(Tally::default());
    let (sender, writing) = queue(Outlet::new(slow.clone(), Format::Json), lines(), &tally);
    let writer = std::thread::spawn(move || writing.run());
    let event = sample(EventKind::Retransmit);
    for _ in 0..EVENTS {
        sender.offer(event, Some(WALL_NS));
    }
    let lost = tally.queue_full.load(Relaxed);
    assert!(lost > 0);
    slow.let_go();
    drop(sender);
    writer.join().unwrap().unwrap();
    assert_eq!(tally.shown.load(Relaxed) + lost, EVENTS);
    let written = slow.1.lock().unwrap();
    let written = written.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(written as u64 + lost, EVENTS);
}

/// Five seconds of 50,000 events a second through the whole pipeline, none of them lost. How long it
/// takes is not judged.
#[test]
fn a_quick_output_gets_everything() {
    const EVENTS: u64 = 250_000;
    let tally = Arc::new(Tally::default());
    let out = tempfile::tempfile().unwrap();
    let outlet = Outlet::new(out.try_clone().unwrap(), Format::Json);
    let (sender, writing) = queue(outlet, lines(), &tally);
    let writer = std::thread::spawn(move || writing.run());
    let begun = std::time::Instant::now();
    let event = sample(EventKind::Retransmit);
    for number in 0..EVENTS {
        // As the ring would: it waits for nobody, but it does not come faster either.
        while tally.shown.load(Relaxed) + 60_000 < number {
            std::thread::yield_now();
        }
        assert!(sender.offer(event, Some(WALL_NS)));
    }
    drop(sender);
    writer.join().unwrap().unwrap();
    eprintln!("{EVENTS} events in {:?}", begun.elapsed());
    assert_eq!(tally.shown.load(Relaxed), EVENTS);
    assert_eq!(tally.queue_full.load(Relaxed), 0);
}

#[test]
fn an_output_that_is_gone_ends_the_writing() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let tally = Arc::new(Tally::default());
    let (sender, writing) = queue(Outlet::new(Gone, Format::Json), lines(), &tally);
    let writer = std::thread::spawn(move || writing.run());
    sender.offer(sample(EventKind::Listener), None);
    let error = writer.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert!(!sender.offer(sample(EventKind::Listener), None));
}
