//! Events from bytes: fixed ones, with every field where the kernel side puts it, and any others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use netobs_common::{
    event::{
        DROP_POLLED, DecodeError, Event, EventHeader, EventKind, LISTENER_OPENED, ListenDrop,
        ListenerChange, Retransmit,
    },
    owner::Owner,
};
use proptest::prelude::*;
use zerocopy::{FromBytes as _, IntoBytes as _};

/// Bytes of a record, little endian numbers put one after another.
#[derive(Default)]
struct Record(Vec<u8>);

impl Record {
    fn header(kind: EventKind) -> Self {
        Self::default()
            .put(&0x0102_0304_0506_0708_u64.to_le_bytes())
            .put(&(kind as u32).to_le_bytes())
            .put(&4_026_531_840_u32.to_le_bytes())
    }

    fn owner(self) -> Self {
        self.put(&OWNER.cgroup.to_le_bytes())
            .put(&OWNER.net.to_le_bytes())
            .put(&OWNER.netns.to_le_bytes())
            .put(&OWNER.pid.to_le_bytes())
            .put(&OWNER.comm)
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

const HEADER: EventHeader = EventHeader {
    ktime_ns: 0x0102_0304_0506_0708,
    kind: 0,
    netns: 4_026_531_840,
};

const OWNER: Owner = Owner {
    cgroup: 77,
    net: 9,
    netns: 4_026_531_840,
    pid: 4711,
    comm: *b"nginx\0\0\0\0\0\0\0\0\0\0\0",
};

fn header(kind: EventKind) -> EventHeader {
    EventHeader {
        kind: kind as u32,
        ..HEADER
    }
}

fn address(first: [u8; 4]) -> [u8; 16] {
    let mut all = [0; 16];
    all[..4].copy_from_slice(&first);
    all
}

#[test]
#[cfg(target_endian = "little")]
fn a_retransmission_is_decoded() {
    let record = Record::header(EventKind::Retransmit)
        .put(&0xffff_8880_1234_5678_u64.to_le_bytes())
        .put(&address([10, 0, 0, 1]))
        .put(&address([10, 0, 0, 2]))
        .put(&443_u16.to_le_bytes())
        .put(&50_000_u16.to_le_bytes())
        .put(&[2, 0, 0, 0]) // AF_INET, reserved
        .owner()
        .put(&2_000_000_000_u64.to_le_bytes()) // age_ns
        .put(&1234_u64.to_le_bytes()) // bytes_acked
        .put(&99_u64.to_le_bytes()) // bytes_received
        .put(&17_u32.to_le_bytes()) // segments
        .put(&(-113_i32).to_le_bytes()) // -EHOSTUNREACH
        .put(&21_u32.to_le_bytes()) // total_retrans
        .put(&1500_u32.to_le_bytes()) // srtt_us
        .put(&10_u32.to_le_bytes()) // snd_cwnd
        .put(&[1, 0, 4, 3]); // fast, server, FIN_WAIT1, timeouts
    let Event::Retransmit(event) = Event::decode(&record.0).unwrap() else {
        panic!("another event");
    };
    assert_eq!(event.header, header(EventKind::Retransmit));
    assert_eq!(event.sk, 0xffff_8880_1234_5678);
    assert_eq!(event.ends.local_address, address([10, 0, 0, 1]));
    assert_eq!(event.ends.remote_address, address([10, 0, 0, 2]));
    assert_eq!(
        (event.ends.local_port, event.ends.remote_port),
        (443, 50_000)
    );
    assert_eq!(event.ends.family, 2);
    assert_eq!(
        (event.segments, event.err, event.total_retrans),
        (17, -113, 21)
    );
    assert_eq!((event.srtt_us, event.snd_cwnd), (1500, 10));
    assert_eq!(
        (event.kind, event.role, event.state, event.timeouts),
        (1, 0, 4, 3)
    );
    assert_eq!(event.owner, OWNER);
    assert_eq!(
        (event.age_ns, event.bytes_acked, event.bytes_received),
        (2_000_000_000, 1234, 99)
    );
    assert_eq!(record.0.len(), size_of::<Retransmit>());
}

#[test]
#[cfg(target_endian = "little")]
fn a_dropped_final_ack_is_decoded() {
    let record = Record::header(EventKind::ListenDrop)
        .put(&7_u64.to_le_bytes())
        .put(&address([10, 0, 0, 1]))
        .put(&address([10, 0, 0, 2]))
        .put(&8080_u16.to_le_bytes())
        .put(&50_000_u16.to_le_bytes())
        .put(&2_u16.to_le_bytes())
        .put(&[0, 0])
        .owner()
        .put(&129_u32.to_le_bytes())
        .put(&128_u32.to_le_bytes())
        .put(&17_u32.to_le_bytes())
        .put(&40_u32.to_le_bytes())
        .put(&[1, 2, DROP_POLLED])
        .put(&[0; 5]);
    let Event::ListenDrop(event) = Event::decode(&record.0).unwrap() else {
        panic!("another event");
    };
    assert_eq!(event.header, header(EventKind::ListenDrop));
    assert_eq!((event.sk, event.drops, event.reason), (7, 17, 40));
    assert_eq!(event.ends.remote_address, address([10, 0, 0, 2]));
    assert_eq!((event.ends.local_port, event.ends.family), (8080, 2));
    assert_eq!((event.ack_backlog, event.max_ack_backlog), (129, 128));
    assert_eq!(
        (event.stage, event.cause, event.method),
        (1, 2, DROP_POLLED)
    );
    assert_eq!(record.0.len(), size_of::<ListenDrop>());
}

#[test]
#[cfg(target_endian = "little")]
fn a_listeners_change_is_decoded() {
    let record = Record::header(EventKind::Listener)
        .put(&9_u64.to_le_bytes())
        .owner()
        .put(&[0x20; 16])
        .put(&53_u16.to_le_bytes())
        .put(&10_u16.to_le_bytes())
        .put(&LISTENER_OPENED.to_le_bytes());
    let Event::Listener(event) = Event::decode(&record.0).unwrap() else {
        panic!("another event");
    };
    assert_eq!(event.header, header(EventKind::Listener));
    assert_eq!(
        (event.sk, event.change, event.owner.pid),
        (9, LISTENER_OPENED, 4711)
    );
    assert_eq!(event.local_address, [0x20; 16]);
    assert_eq!((event.local_port, event.family), (53, 10));
    assert_eq!(record.0.len(), size_of::<ListenerChange>());
}

#[test]
fn records_that_are_cut_short_are_refused_at_every_length() {
    for kind in EventKind::ALL {
        let mut record = vec![0; kind.size()];
        record[8..12].copy_from_slice(&(*kind as u32).to_ne_bytes());
        for len in 0..record.len() {
            let known = (len >= size_of::<EventHeader>()).then_some(*kind);
            let refused = Err(DecodeError::Short { kind: known, len });
            assert_eq!(Event::decode(&record[..len]), refused);
        }
        assert!(Event::decode(&record).is_ok());
        // The ring pads its records.
        record.extend([0xff; 7]);
        assert!(Event::decode(&record).is_ok());
    }
}

/// Bytes that more often than not begin as an event does.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let any_kind = prop_oneof![
        3 => (0..=u32::try_from(EventKind::ALL.len()).unwrap()).boxed(),
        1 => any::<u32>().boxed(),
    ];
    (any_kind, prop::collection::vec(any::<u8>(), 0..500)).prop_map(|(kind, mut bytes)| {
        if let Some(place) = bytes.get_mut(8..12) {
            place.copy_from_slice(&kind.to_ne_bytes());
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_are_an_event_or_an_error(bytes in records()) {
        match Event::decode(&bytes) {
            Ok(event) => {
                let kind = EventKind::from_u32(event.header().kind);
                prop_assert!(kind.is_some_and(|kind| bytes.len() >= kind.size()));
                let again = event.as_bytes();
                prop_assert!(bytes.starts_with(again));
                prop_assert_eq!(event.header().as_bytes(), &bytes[..size_of::<EventHeader>()]);
            }
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                if let DecodeError::UnknownKind(kind) = error {
                    prop_assert!(EventKind::from_u32(kind).is_none());
                }
            }
        }
    }

    #[test]
    fn headers_keep_every_byte(bytes in prop::array::uniform16(any::<u8>())) {
        let read = EventHeader::read_from_bytes(&bytes).unwrap();
        prop_assert_eq!(read.as_bytes(), bytes);
    }
}
