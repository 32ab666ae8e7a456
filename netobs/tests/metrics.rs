//! The whole of `/metrics` from fixed books, as text that users' dashboards are built on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use netobs::{
    bpf::RunStats,
    ledger::{
        dns::DnsBook,
        listeners::{Counting, KernelListenCounters, ListenerBook, Owners},
        retransmits::RetransmitBook,
    },
    metrics::{NetnsView, SelfView, View},
    probes::{Exactness, ProbeStatus, Signal, SignalInfo},
    sys::netstat::{Counter, Counters},
    web::text004,
};
use netobs_common::{
    dns::{AnswerCounts, AnswerKey, DnsCounts, Lookup},
    ledger::{
        Listener, ListenerReading, ProbeCounts, RetransmitCounts, RetransmitKey, RetransmitType,
        Role,
    },
    owner::OwnerKey,
    probe::Program,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode},
    registry::Registry,
};
use zerocopy::FromZeros as _;

/// Names that need escaping, by port.
struct Names;

impl Owners for Names {
    fn names(&mut self, listeners: &[Listener]) -> Vec<String> {
        let name = |listener: &Listener| match listener.local_port {
            80 => "nginx".to_owned(),
            81 => "q\"u\\o\nte".to_owned(),
            _ => String::new(),
        };
        listeners.iter().map(name).collect()
    }
}

fn reading(netns: u32, port: u16, drops: u32, acks: u64) -> ListenerReading {
    let mut reading = ListenerReading::new_zeroed();
    reading.socket.sk = u64::from(netns) << 16 | u64::from(port);
    reading.listener.opened_ns = 1;
    reading.listener.netns = netns;
    reading.listener.local_port = port;
    reading.listener.family = 2;
    reading.listener.local_address[..4].copy_from_slice(&[192, 0, 2, 1]);
    if port == 443 {
        reading.listener.family = 10;
        reading.listener.local_address = [0; 16];
    }
    reading.listener.ack_drops = acks;
    reading.listener.discards = acks;
    reading.socket.drops = drops;
    reading.socket.ack_backlog = 5;
    reading.socket.max_ack_backlog = 4;
    reading.socket.syn_queue = 2;
    reading
}

/// Two namespaces: one whose accept queues overflow, one with a full SYN queue; more listeners than
/// there is room for.
fn listeners() -> ListenerBook {
    let mut book = ListenerBook::new(3, Counting::ByIdentity { stages: true });
    let quiet = [
        reading(10, 80, 0, 0),
        reading(10, 443, 0, 0),
        reading(20, 81, 0, 0),
        reading(20, 8080, 0, 0),
    ];
    book.observe(&quiet, 100, &mut Names);
    book.baseline(&HashSet::from([10, 20]));
    let busy = [
        reading(10, 80, 12, 4),
        reading(10, 443, 3, 0),
        reading(20, 81, 6, 0),
        reading(20, 8080, 0, 0),
    ];
    for _ in 0..2 {
        book.observe(&busy, 101, &mut Names);
    }
    let all = |drops, overflows, syn_queue_full| {
        Some(KernelListenCounters {
            drops,
            overflows,
            syn_queue_full,
        })
    };
    book.settle(10, all(11, 11, 0));
    book.settle(20, all(6, 0, 6));
    book
}

fn retransmits() -> RetransmitBook {
    let entry = |netns, port, role, kind, segments, failures| {
        let key = RetransmitKey {
            netns,
            port,
            role: role as u8,
            kind: kind as u8,
        };
        let counts = RetransmitCounts {
            segments,
            failures,
            syn_segments: 0,
        };
        (key, counts)
    };
    let mut book = RetransmitBook::new(3);
    book.take(&[
        entry(10, 443, Role::Server, RetransmitType::Fast, 100, 0),
        entry(10, 443, Role::Server, RetransmitType::Timeout, 7, 2),
        entry(10, 443, Role::Server, RetransmitType::SynAck, 3, 0),
        entry(10, 5432, Role::Client, RetransmitType::Syn, 5, 0),
        entry(20, 0, Role::Client, RetransmitType::TailLossProbe, 1, 0),
    ]);
    book.take(&[entry(20, 53, Role::Client, RetransmitType::Other, 9, 1)]);
    book
}

fn namespaces() -> Vec<NetnsView> {
    let view = |netns, netstat: &str, snmp: &str, unattributed| NetnsView {
        netns,
        counters: Counters::parse(netstat, snmp),
        unattributed,
    };
    vec![
        view(
            10,
            "TcpExt: ListenOverflows ListenDrops TCPSynRetrans\nTcpExt: 11 11 8\n",
            "Tcp: RetransSegs OutRsts\nTcp: 115 0\n",
            vec![
                (Counter::ListenDrops, 0),
                (Counter::ListenOverflows, 0),
                (Counter::RetransSegs, 0),
                (Counter::TcpSynRetrans, -1),
            ],
        ),
        view(
            20,
            "TcpExt: ListenOverflows ListenDrops\nTcpExt: 0 18446744073709551615\n",
            "Tcp: RetransSegs\nTcp: 12\n",
            vec![(Counter::ListenDrops, 3)],
        ),
    ]
}

fn lookups() -> DnsBook {
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"curl");
    let owner = OwnerKey {
        netns: 10,
        comm,
        ..OwnerKey::default()
    };
    let mut answers = AnswerCounts::default();
    answers.buckets[2] = 3;
    answers.sum_ns = 2_400_000;
    let key = |response| AnswerKey {
        owner,
        response,
        reserved: 0,
    };
    let counts = DnsCounts {
        queries: 9,
        repeats: 1,
        unanswered: 1,
        late: 1,
        truncated: 1,
        strays: 1,
        malformed: 1,
    };
    let mut book = DnsBook::new(9);
    book.take_answers(&[(key(0), answers), (key(3), answers)]);
    book.take_counts(&[(owner, counts)]);
    book.give_up(&Lookup {
        owner,
        ..Lookup::EMPTY
    });
    book
}

fn agent() -> SelfView {
    let probe = |probe, method, attached| ProbeStatus {
        probe,
        method,
        attached,
        wanted: true,
        running: None,
        reasons: Vec::new(),
        without: None,
    };
    let counts = ProbeCounts {
        events: 116,
        lost: [2, 0, 1, 0, 0],
    };
    let runs = RunStats {
        time: Duration::from_nanos(46_400),
        count: 116,
    };
    SelfView {
        probes: vec![
            probe("tcp_retransmit_skb", "tp_btf", true),
            probe("kfree_skb", "tp_btf", false),
        ],
        signals: vec![SignalInfo {
            signal: Signal::ListenDrops,
            method: "sk_drops",
            exactness: Exactness::LowerBound,
            because: "",
        }],
        counts: vec![(Program::TcpRetransmitSkb, counts)],
        undecodable: 1,
        runs: vec![("tcp_retransmit_skb", runs)],
        unreadable_namespaces: 1,
        listeners: 4,
        gather_seconds: 0.0015,
    }
}

#[derive(Debug)]
struct Books;

impl Collector for Books {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let view = View {
            listeners: &listeners(),
            retransmits: &retransmits(),
            dns: Some(&lookups()),
            namespaces: &namespaces(),
            agent: &agent(),
        };
        view.encode(&mut encoder)
    }
}

/// The text, without the families of the process that runs the test, and without its build.
fn text() -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Books));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    let steady = |line: &str| {
        let mut words = line
            .split([' ', '{'])
            .skip_while(|word| matches!(*word, "#" | "HELP" | "TYPE"));
        let name = words.next().unwrap_or_default();
        if name.starts_with("process_") {
            String::new()
        } else if line.starts_with("netobs_build_info{") {
            "netobs_build_info{version=\"V\",revision=\"R\",rustc=\"C\"} 1\n".to_owned()
        } else {
            format!("{line}\n")
        }
    };
    text.lines().map(steady).collect()
}

#[test]
fn metrics_are_as_agreed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.prom");
    let text = text();
    if std::env::var_os("NETOBS_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "accept the difference with NETOBS_BLESS=1");
}

#[test]
fn promtool_takes_the_metrics() {
    testbed::require!(testbed::require::command("promtool"));
    let text = text004::rewrite(&text());
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{text}");
    assert_eq!(said, "", "promtool has something to say");
}
