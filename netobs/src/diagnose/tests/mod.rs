//! The whole of a diagnosis over evidence that was made up: what rules say, and how it is told.

mod golden;
mod rules;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use jiff::tz::TimeZone;
use netobs_common::{
    connection::{ConnectFailure, LATENCY_BOUNDS_NS},
    dns::{Lookup, QUESTION_BYTES},
    event::{
        DNS_UNANSWERED, DROP_SEEN, Dns, Endpoints, Event, EventHeader, EventKind, ListenDrop,
        Retransmit,
    },
    kernel::NO_REASON,
    ledger::{Reason, RetransmitType, Role, Stage},
    owner::Owner as KernelOwner,
};

use super::{
    Conntrack, Diagnosis, Evidence, Listening, Lookups, Observed, Place, Snapshot, Source, diagnose,
};
use crate::{
    ledger::{
        accepts::AcceptValues,
        connects::{ConnectLabels, ConnectValues},
        listeners::ListenerLabels,
        owner::Owner,
        retransmits::{RetransmitLabels, RetransmitValues},
    },
    sys::{clock::ClockPair, netstat::Counters, owner::Comm},
};

const NETNS: u32 = 4_026_532_001;
/// 2026-11-21T14:30:07.2 in UTC.
const WALL_NS: u64 = 1_795_271_407_200_000_000;
/// The monotonic clock then.
const NOW_NS: u64 = 5_000_000_000_000;

fn owner(process: &str) -> Owner {
    Owner {
        netns: NETNS,
        identity: 0,
        process: Comm::from_bytes(process.as_bytes()),
        ..Owner::default()
    }
}

fn kernel_owner(process: &str) -> KernelOwner {
    KernelOwner {
        cgroup: 0,
        net: 0,
        netns: NETNS,
        pid: 4711,
        comm: Comm::from_bytes(process.as_bytes()).to_bytes(),
    }
}

fn header(kind: EventKind, before_ms: u64) -> EventHeader {
    EventHeader {
        ktime_ns: NOW_NS - before_ms * 1_000_000,
        kind: kind as u32,
        netns: NETNS,
    }
}

fn v4(address: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&address);
    bytes
}

fn ends(local_port: u16, remote: [u8; 4], remote_port: u16) -> Endpoints {
    Endpoints {
        local_address: v4([10, 0, 0, 1]),
        remote_address: v4(remote),
        local_port,
        remote_port,
        family: 2,
        reserved: 0,
    }
}

/// Half a minute in which one namespace was watched and everything went well.
fn quiet() -> Evidence {
    let counters = Counters::parse(
        "TcpExt: ListenDrops\nTcpExt: 0\n",
        "Tcp: OutSegs\nTcp: 9000\n",
    );
    Evidence {
        source: Source::Watched,
        window: Duration::from_secs(30),
        until_ns: WALL_NS,
        after: Snapshot {
            counters: BTreeMap::from([(NETNS, counters)]),
            lookups: Some(BTreeMap::new()),
            ..Snapshot::default()
        },
        places: BTreeMap::from([(
            NETNS,
            Place {
                ports: Some((32_768, 60_999)),
                reuse: Some(2),
                time_wait: Some(12),
                conntrack: Some(Conntrack {
                    entries: 10,
                    most: 1_000,
                }),
            },
        )]),
        clock: Some(ClockPair {
            monotonic_ns: NOW_NS,
            wall_ns: WALL_NS,
        }),
        zone: Some(TimeZone::UTC),
        ..Evidence::default()
    }
}

fn listener(process: &str, port: u16) -> ListenerLabels {
    ListenerLabels {
        owner: owner(process),
        address: IpAddr::from([0, 0, 0, 0]),
        port,
    }
}

/// A listener whose accept queue dropped.
fn overflow(evidence: &mut Evidence, labels: ListenerLabels, drops: u32, accepts: AcceptValues) {
    let mut listening = Listening {
        length: 129,
        limit: 128,
        peak: 129,
        cut: Some(false),
        sockets: 1,
        ..Listening::default()
    };
    let counts = &mut listening.counts.drops;
    counts[Stage::Syn as usize][Reason::AcceptQueueFull as usize] = drops.into();
    evidence.after.listeners.insert(labels, listening);
    let key = (NETNS, labels.address, labels.port);
    evidence.after.accepts.insert(key, accepts);
    let drop = |before_ms, drops| {
        Event::ListenDrop(ListenDrop {
            header: header(EventKind::ListenDrop, before_ms),
            sk: 1,
            ends: ends(labels.port, [10, 0, 0, 2], 50_000),
            owner: kernel_owner("nginx"),
            ack_backlog: 129,
            max_ack_backlog: 128,
            drops,
            reason: NO_REASON,
            stage: Stage::Syn as u8,
            cause: Reason::AcceptQueueFull as u8,
            method: DROP_SEEN,
            reserved: [0; 5],
        })
    };
    evidence.observed.take(&drop(9_000, drops - 2));
    evidence.observed.take(&drop(2_500, 2));
}

fn accepted(count: u64, ns: u64) -> AcceptValues {
    let mut values = AcceptValues {
        established: count,
        accepted: count,
        ..AcceptValues::default()
    };
    let bucket = LATENCY_BOUNDS_NS.iter().take_while(|bound| **bound < ns);
    values.latency.buckets[bucket.count()] = count;
    values.latency.sum_ns = count * ns;
    values
}

/// Retransmissions to each of these peers.
fn retransmit(evidence: &mut Evidence, to: &[([u8; 4], u32)]) {
    let mut values = RetransmitValues::default();
    for (peer, segments) in to {
        values.segments[RetransmitType::Fast as usize] += u64::from(*segments);
        evidence.observed.take(&Event::Retransmit(Retransmit {
            header: header(EventKind::Retransmit, 4_000),
            sk: 2,
            ends: ends(40_000, *peer, 5432),
            owner: kernel_owner("app"),
            age_ns: 0,
            bytes_acked: 0,
            bytes_received: 0,
            segments: *segments,
            err: 0,
            total_retrans: 0,
            srtt_us: 0,
            snd_cwnd: 10,
            kind: RetransmitType::Fast as u8,
            role: Role::Client as u8,
            state: 1,
            timeouts: 0,
        }));
    }
    let labels = RetransmitLabels {
        owner: owner("app"),
        role: Role::Client,
        port: 5432,
    };
    evidence.after.retransmits.insert(labels, values);
}

fn connects(evidence: &mut Evidence, port: u16, begun: u64, failed: &[(ConnectFailure, u64)]) {
    let mut values = ConnectValues {
        begun,
        ..ConnectValues::default()
    };
    let mut completed = begun;
    for (failure, count) in failed {
        values.failures[*failure as usize] = *count;
        completed -= count;
    }
    values.latency.buckets[2] = completed;
    values.latency.sum_ns = completed * 2_000_000;
    let labels = ConnectLabels {
        owner: owner("app"),
        port,
    };
    evidence.after.connects.insert(labels, values);
}

fn lookups(evidence: &mut Evidence, lookups: Lookups) {
    let books = evidence.after.lookups.get_or_insert_default();
    books.insert(owner("curl"), lookups);
}

/// A lookup that got no answer from this server.
fn silence(observed: &mut Observed, server: [u8; 4]) {
    let asked = b"\x03api\x07example\0\0\x01\0\x01";
    let mut question = [0; QUESTION_BYTES];
    question[..asked.len()].copy_from_slice(asked);
    observed.take(&Event::Dns(Dns {
        header: header(EventKind::Dns, 3_000),
        latency_ns: 5_000_000_000,
        lookup: Lookup {
            owner: kernel_owner("curl"),
            ends: ends(41_000, server, 53),
            question_bytes: u16::try_from(asked.len()).unwrap(),
            question,
            ..Lookup::EMPTY
        },
        outcome: DNS_UNANSWERED,
        answer_flags: 0,
        answers: 0,
        reserved: 0,
    }));
}

fn ids(diagnosis: &Diagnosis) -> Vec<&'static str> {
    diagnosis.findings.iter().map(|found| found.id).collect()
}

fn only(evidence: &Evidence) -> (&'static str, String) {
    let diagnosis = diagnose(evidence);
    let [found] = diagnosis.findings.as_slice() else {
        panic!("{:?}", ids(&diagnosis));
    };
    (found.id, serde_json::to_string(found).unwrap())
}
