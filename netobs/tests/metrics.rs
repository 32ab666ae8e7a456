//! The whole of `/metrics` from fixed books, as text that users' dashboards are built on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use netobs::{
    bpf::RunStats,
    ledger::{
        accepts::{self, AcceptBook},
        bursts::BurstBook,
        connects::{self, ConnectBook},
        dns::DnsBook,
        listeners::{Counting, KernelListenCounters, ListenerBook, Owners},
        namespace::Namespace,
        owner::{Names, Owner, PodName, Workloads},
        resets::{self, ResetBook},
        retransmits::RetransmitBook,
    },
    metrics::{Bursts, NetnsView, ResetReasons, SelfView, View},
    probes::{Exactness, ProbeStatus, Signal, SignalInfo},
    recorder::{FileStats, Stats},
    sys::{
        cgroup::{ContainerId, PodUid, Workload},
        netstat::{Counter, Counters},
        owner::Comm,
    },
    web::text004,
};
use netobs_common::{
    connection::{AcceptCounts, ConnectCounts, ConnectFailure, ConnectKey, ListenerKey},
    dns::{AnswerCounts, AnswerKey, DnsCounts},
    event::NO_RESET_REASON,
    ledger::{
        Direction, Listener, ListenerReading, ProbeCounts, ResetClass, ResetKey, RetransmitCounts,
        RetransmitKey, RetransmitType, Role,
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
struct Holders;

impl Owners for Holders {
    fn of(&mut self, listeners: &[Listener]) -> Vec<Owner> {
        let owner = |listener: &Listener| {
            let mut owner = owner(listener.owner.netns, 0);
            match listener.local_port {
                80 => {
                    owner.process = Comm::from_bytes(b"nginx");
                    owner.workload = Workloads::of(&mut Pods, CGROUP);
                }
                81 => owner.process = Comm::from_bytes(b"q\"u\\o\nte"),
                _ => {}
            }
            owner
        };
        listeners.iter().map(owner).collect()
    }
}

fn reading(netns: u32, port: u16, drops: u32, acks: u64) -> ListenerReading {
    let mut reading = ListenerReading::new_zeroed();
    reading.socket.sk = u64::from(netns) << 16 | u64::from(port);
    reading.listener.opened_ns = 1;
    reading.listener.owner.netns = netns;
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
    book.observe(&quiet, 100, &mut Holders);
    book.baseline(&HashSet::from([10, 20]));
    let busy = [
        reading(10, 80, 12, 4),
        reading(10, 443, 3, 0),
        reading(20, 81, 6, 0),
        reading(20, 8080, 0, 0),
    ];
    for _ in 0..2 {
        book.observe(&busy, 101, &mut Holders);
    }
    let all = |drops, overflows, syn_queue_full| {
        Some(KernelListenCounters {
            drops,
            overflows,
            syn_queue_full,
        })
    };
    let space = |number| Namespace {
        number,
        identity: 0,
    };
    book.settle(space(10), all(11, 11, 0));
    book.settle(space(20), all(6, 0, 6));
    book
}

fn retransmits() -> RetransmitBook {
    let entry = |netns, port, role, kind, segments, failures| {
        let key = RetransmitKey {
            owner: key(netns, if port == 443 { CGROUP } else { 0 }),
            reserved: 0,
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
    let counts = [
        entry(10, 443, Role::Server, RetransmitType::Fast, 100, 0),
        entry(10, 443, Role::Server, RetransmitType::Timeout, 7, 2),
        entry(10, 443, Role::Server, RetransmitType::SynAck, 3, 0),
        entry(10, 5432, Role::Client, RetransmitType::Syn, 5, 0),
        entry(20, 0, Role::Client, RetransmitType::TailLossProbe, 1, 0),
    ];
    book.take(&counts, &mut Pods);
    let counts = [entry(20, 53, Role::Client, RetransmitType::Other, 9, 1)];
    book.take(&counts, &mut Pods);
    book
}

/// The cgroup of a container in a pod; no other is known.
const CGROUP: u64 = 4711;

struct Pods;

impl Workloads for Pods {
    fn of(&mut self, cgroup: u64) -> Workload {
        let (id, uid) = (
            "0123456789abcdef".repeat(4),
            "c0ffee00-0000-4000-8000-00000000beef",
        );
        if cgroup == CGROUP {
            Workload::new(ContainerId::from_hex(&id), PodUid::parse(uid))
        } else {
            Workload::default()
        }
    }
}

impl Names for Pods {
    fn of(&self, workload: Workload) -> Option<Arc<PodName>> {
        (!workload.is_empty()).then(|| {
            Arc::new(PodName {
                namespace: "shop".to_owned(),
                pod: "checkout-7d4b9c-x2x7q".to_owned(),
                container: "app".to_owned(),
            })
        })
    }
}

fn key(netns: u32, cgroup: u64) -> OwnerKey {
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"curl");
    OwnerKey {
        net: 0,
        cgroup,
        netns,
        reserved: 0,
        comm,
    }
}

fn owner(netns: u32, cgroup: u64) -> Owner {
    let key = OwnerKey {
        comm: [0; 16],
        ..key(netns, cgroup)
    };
    Owner::of(&key, &mut Pods)
}

fn connects() -> ConnectBook {
    let mut book = ConnectBook::new(2);
    let entry =
        |netns, port, begun, latencies: &[(usize, u64)], failures: &[(ConnectFailure, u64)]| {
            let mut counts = ConnectCounts {
                begun,
                ..ConnectCounts::NONE
            };
            for (bucket, count) in latencies {
                counts.latency.buckets[*bucket] = *count;
                counts.latency.sum_ns += count * 1_000_000;
            }
            for (failure, count) in failures {
                counts.failures[*failure as usize] = *count;
            }
            let key = ConnectKey {
                owner: key(netns, CGROUP),
                port,
                reserved: [0; 3],
            };
            (key, counts)
        };
    let counts = [
        entry(
            10,
            443,
            9,
            &[(1, 4), (16, 1)],
            &[(ConnectFailure::TimedOut, 2)],
        ),
        entry(10, 80, 1, &[(0, 1)], &[]),
        entry(20, 80, 3, &[(0, 1)], &[(ConnectFailure::NotSent, 2)]),
    ];
    connects::take(&mut book, &counts, &mut Pods);
    book
}

fn accepts() -> AcceptBook {
    let mut book = AcceptBook::new(9);
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[192, 0, 2, 1]);
    let key = ListenerKey {
        net: 0,
        netns: 10,
        port: 80,
        family: 2,
        address,
    };
    let mut counts = AcceptCounts {
        established: 8,
        accepted: 7,
        ..AcceptCounts::NONE
    };
    counts.latency.buckets[2] = 7;
    counts.latency.sum_ns = 14_000_000;
    accepts::take(&mut book, &[(key, counts)]);
    book
}

fn resets() -> ResetBook {
    let mut book = ResetBook::new(9);
    let key = |direction, class, state, reason| ResetKey {
        owner: key(10, CGROUP),
        reason,
        port: 80,
        role: Role::Server as u8,
        direction: direction as u8,
        state,
        class: class as u8,
        reserved: [0; 6],
    };
    let counts = [
        (
            key(
                Direction::Received,
                ResetClass::Connection,
                1,
                NO_RESET_REASON,
            ),
            5,
        ),
        (key(Direction::Sent, ResetClass::Abort, 1, 3), 2),
    ];
    resets::take(&mut book, &counts, &mut Pods);
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
    book.give_up(&owner);
    let counts = book.with_given_up(vec![(owner, counts)]);
    book.take(&[(key(0), answers), (key(3), answers)], &counts, &mut Pods);
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
        skipped: 3,
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
        reload_successful: true,
        reload_succeeded_at: 1_700_000_000,
    }
}

/// Two bursts in the minute before, and one listener without any.
fn bursts() -> Bursts {
    let mut bursts = Bursts {
        retransmits: BurstBook::new(9),
        drops: BurstBook::new(9),
    };
    let wall_ns = |bin: u32| Some(1_000 * 60_000_000_000 + u64::from(bin) * 100_000_000);
    bursts.retransmits.begin(&10, 0);
    bursts.retransmits.count(Some(&10), 100, 17);
    bursts.retransmits.count(Some(&10), 101, 250);
    bursts.retransmits.close(700, &wall_ns);
    for labels in listeners().series().iter().filter_map(|(labels, _)| labels) {
        bursts.drops.begin(labels, 0);
        let drops = if labels.port == 80 { 12 } else { 0 };
        if drops > 0 {
            bursts.drops.count(Some(labels), 300, drops);
        }
    }
    bursts.drops.close(700, &wall_ns);
    bursts
}

fn recorder() -> Stats {
    Stats {
        events: 1_000,
        memory_bytes: 20_000,
        memory_events: 900,
        files: Some(FileStats {
            bytes: 50_000,
            segments: 2,
            written: 800,
            lost_queue: 1,
            lost_disk: 99,
            errors: 3,
            writing: false,
        }),
    }
}

#[derive(Debug)]
struct Books;

impl Collector for Books {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let view = View {
            names: &Pods,
            accepts: &accepts(),
            connects: &connects(),
            resets: &resets(),
            reset_reasons: &ResetReasons::default(),
            listeners: &listeners(),
            retransmits: &retransmits(),
            bursts: &bursts(),
            recorder: Some(recorder()),
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
