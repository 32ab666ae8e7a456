//! What is done for every event and at every look allocates nothing once it has settled.
//!
//! Counts of allocations are the same on every machine; times are not, and are in `cargo xtask
//! bench`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::hint::black_box;

use allocation_counter::measure;
use netobs::{
    ledger::{
        listeners::{Counting, ListenerBook, Owners},
        owner::{Owner, Workloads},
        retransmits::RetransmitBook,
    },
    sys::cgroup::Workload,
};
use netobs_common::{
    event::{Event, EventHeader, EventKind},
    ledger::{Listener, ListenerReading, RetransmitCounts, RetransmitKey, RetransmitType, Role},
};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// The bytes of an event of a kind, as they lie in the ring.
fn record(kind: EventKind) -> Vec<u8> {
    let mut bytes = vec![0; kind.size()];
    let header = EventHeader {
        ktime_ns: 1,
        kind: kind as u32,
        netns: 1,
    };
    bytes[..size_of::<EventHeader>()].copy_from_slice(header.as_bytes());
    bytes
}

#[test]
fn decoding_an_event_allocates_nothing() {
    let records: Vec<Vec<u8>> = EventKind::ALL.iter().map(|kind| record(*kind)).collect();
    let allocations = measure(|| {
        for (kind, bytes) in EventKind::ALL.iter().zip(&records) {
            for _ in 0..1_000 {
                let event = Event::decode(black_box(bytes)).unwrap();
                assert_eq!(event.header().kind, *kind as u32);
            }
        }
        // What is no event costs no more than one.
        assert!(Event::decode(black_box(&[1, 2, 3])).is_err());
    });
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}

struct Nobody;

impl Owners for Nobody {
    fn of(&mut self, listeners: &[Listener]) -> Vec<Owner> {
        vec![Owner::default(); listeners.len()]
    }
}

impl Workloads for Nobody {
    fn of(&mut self, _cgroup: u64) -> Workload {
        Workload::default()
    }
}

#[test]
fn counts_of_known_keys_are_taken_without_allocations() {
    let counts = |segments| -> Vec<(RetransmitKey, RetransmitCounts)> {
        (1..=500)
            .map(|port| {
                let mut key = RetransmitKey::new_zeroed();
                key.port = port;
                key.role = Role::Server as u8;
                key.kind = RetransmitType::Timeout as u8;
                let counts = RetransmitCounts {
                    segments,
                    failures: 0,
                    syn_segments: 0,
                };
                (key, counts)
            })
            .collect()
    };
    let mut book = RetransmitBook::new(1_000);
    book.take(&counts(1), &mut Nobody);
    let (second, third) = (counts(2), counts(3));
    let allocations = measure(|| {
        book.take(&second, &mut Nobody);
        book.take(&third, &mut Nobody);
    });
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}

fn readings(drops: u32) -> Vec<ListenerReading> {
    let reading = |port: u16| {
        let mut reading = ListenerReading::new_zeroed();
        reading.socket.sk = u64::from(port);
        reading.socket.drops = drops;
        reading.listener.opened_ns = 1;
        reading.listener.local_port = port;
        reading.listener.owner.netns = u32::from(port % 10);
        reading.listener.family = 2;
        reading
    };
    (1..=500).map(reading).collect()
}

#[test]
fn looking_at_known_listeners_allocates_nothing() {
    let mut book = ListenerBook::new(1_000, Counting::ByIdentity { stages: true });
    for drops in 0..3 {
        book.observe(&readings(drops), 1, &mut Nobody);
    }
    let quiet = readings(3);
    let busy = readings(4);
    let allocations = measure(|| {
        for minute in 2..12 {
            book.observe(&quiet, minute, &mut Nobody);
            // Drops are confirmed by the second look.
            book.observe(&busy, minute, &mut Nobody);
        }
    });
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}
