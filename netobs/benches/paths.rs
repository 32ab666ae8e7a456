//! The agent's paths, one at a time and a given number of times, for a counter of instructions.
//!
//! `cargo xtask bench instructions` runs it under callgrind: `paths PATH TIMES`. It measures nothing
//! itself, so that nothing else is in the count.
#![allow(
    clippy::expect_used,
    reason = "not part of the agent: what is wrong ends it"
)]

use std::{hint::black_box, time::Duration};

use netobs::{
    bpf::RunStats,
    ledger::{
        accepts::AcceptBook,
        bursts::BurstBook,
        connects::ConnectBook,
        listeners::{Counting, ListenerBook, Owners},
        owner::{Owner, Workloads},
        resets::ResetBook,
        retransmits::RetransmitBook,
    },
    metrics::{Bursts, NetnsView, ResetReasons, SelfView, View},
    probes::ProbeStatus,
    sys::{
        cgroup::Workload,
        netstat::{Counter, Counters},
    },
};
use netobs_common::{
    event::{Event, EventHeader, EventKind, Retransmit},
    ledger::{
        Listener, ListenerReading, ProbeCounts, RetransmitCounts, RetransmitKey, RetransmitType,
        Role,
    },
    probe::{Loss, Program},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode},
    registry::Registry,
};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// Listeners of the books that are looked at, of which each has some 17 series.
const LISTENERS: u16 = 100;
/// Listeners that make a scrape of about 1,000 series.
const SCRAPED: u16 = 50;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    // `cargo test` and `cargo bench` start it with arguments of their own: nothing to do then.
    let times: usize = arguments
        .next()
        .and_then(|times| times.parse().ok())
        .unwrap_or(0);
    match path.as_str() {
        "decode" => decode(times),
        "observe" => observe(times),
        "encode" => scrape(times),
        _ => {}
    }
}

/// Decodes the same record, as it lies in the ring.
fn decode(times: usize) {
    let mut event = Retransmit::new_zeroed();
    event.header = EventHeader {
        ktime_ns: 1,
        kind: EventKind::Retransmit as u32,
        netns: 4_026_531_833,
    };
    let bytes = event.as_bytes();
    for _ in 0..times {
        let event = Event::decode(black_box(bytes)).expect("an event");
        black_box(event.header().netns);
    }
}

struct Unnamed;

impl Owners for Unnamed {
    fn of(&mut self, listeners: &[Listener]) -> Vec<Owner> {
        vec![Owner::default(); listeners.len()]
    }
}

impl Workloads for Unnamed {
    fn of(&mut self, _cgroup: u64) -> Workload {
        Workload::default()
    }
}

fn reading(port: u16) -> ListenerReading {
    let mut reading = ListenerReading::new_zeroed();
    reading.socket.sk = u64::from(port);
    reading.listener.opened_ns = 1;
    reading.listener.owner.netns = 4_026_532_000 + u32::from(port % 50);
    reading.listener.local_port = port;
    reading.listener.family = 2;
    reading.socket.ack_backlog = 5;
    reading.socket.max_ack_backlog = 128;
    reading
}

fn book(listeners: u16) -> (ListenerBook, Vec<ListenerReading>) {
    let readings: Vec<ListenerReading> = (1..=listeners).map(reading).collect();
    let mut book = ListenerBook::new(1_000, Counting::ByIdentity { stages: true });
    book.observe(&readings, 1, &mut Unnamed);
    (book, readings)
}

/// Looks at listeners that have not changed, as happens ten times a second.
fn observe(times: usize) {
    let (mut book, readings) = book(LISTENERS);
    for _ in 0..times {
        black_box(book.observe(black_box(&readings), 1, &mut Unnamed));
        black_box(book.unsettled());
    }
}

/// Books of which a scrape is about 1,000 series.
struct Books {
    listeners: ListenerBook,
    retransmits: RetransmitBook,
    connects: ConnectBook,
    accepts: AcceptBook,
    resets: ResetBook,
    bursts: Bursts,
    namespaces: Vec<NetnsView>,
    agent: SelfView,
}

impl std::fmt::Debug for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Books")
    }
}

impl Collector for Books {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        View {
            names: &(),
            listeners: &self.listeners,
            connects: &self.connects,
            accepts: &self.accepts,
            resets: &self.resets,
            reset_reasons: &ResetReasons::default(),
            retransmits: &self.retransmits,
            bursts: &self.bursts,
            recorder: None,
            dns: None,
            namespaces: &self.namespaces,
            agent: &self.agent,
        }
        .encode(&mut encoder)
    }
}

impl Books {
    fn new() -> Self {
        let mut retransmits = RetransmitBook::new(1_000);
        let counts = RetransmitCounts {
            segments: 12_345,
            failures: 0,
            syn_segments: 0,
        };
        let entries: Vec<(RetransmitKey, RetransmitCounts)> = (1..=20)
            .map(|port| {
                let mut key = RetransmitKey::new_zeroed();
                key.owner.netns = 4_026_531_833;
                key.port = port;
                key.role = Role::Server as u8;
                key.kind = RetransmitType::Timeout as u8;
                (key, counts)
            })
            .collect();
        retransmits.take(&entries, &mut Unnamed);
        let counters = Counters::parse(
            "TcpExt: ListenOverflows ListenDrops TCPSynRetrans\nTcpExt: 11 11 8\n",
            "Tcp: RetransSegs OutRsts\nTcp: 115 0\n",
        );
        Self {
            listeners: book(SCRAPED).0,
            retransmits,
            connects: ConnectBook::new(1_000),
            accepts: AcceptBook::new(1_000),
            resets: ResetBook::new(1_000),
            bursts: Bursts {
                retransmits: BurstBook::new(1_000),
                drops: BurstBook::new(1_000),
            },
            namespaces: vec![NetnsView {
                netns: 4_026_531_833,
                counters,
                unattributed: vec![(Counter::ListenDrops, 0)],
            }],
            agent: SelfView {
                probes: vec![ProbeStatus {
                    probe: "tcp_retransmit_skb",
                    method: "tp_btf",
                    attached: true,
                    wanted: true,
                    running: None,
                    reasons: Vec::new(),
                    without: None,
                }],
                signals: Vec::new(),
                counts: vec![(
                    Program::TcpRetransmitSkb,
                    ProbeCounts {
                        events: 116,
                        lost: [0; Loss::COUNT],
                    },
                )],
                undecodable: 0,
                runs: vec![(
                    "tcp_retransmit_skb",
                    RunStats {
                        time: Duration::from_nanos(46_400),
                        count: 116,
                        skipped: 0,
                    },
                )],
                unreadable_namespaces: 0,
                listeners: u64::from(SCRAPED),
                gather_seconds: 0.001,
                reload_successful: true,
                reload_succeeded_at: 1_700_000_000,
            },
        }
    }
}

/// Writes a whole scrape.
fn scrape(times: usize) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Books::new()));
    for _ in 0..times {
        let mut text = String::new();
        encode(&mut text, &registry).expect("a scrape");
        black_box(text);
    }
}
