use std::net::{IpAddr, Ipv4Addr};

use netobs_common::{
    connection::ConnectFailure,
    event::{
        Accept, CONNECTED, Connect, Endpoints, EventHeader, EventKind, ListenDrop, NO_RESET_REASON,
        Reset, Retransmit,
    },
    ledger::{Direction, ListenerReading, ResetClass, RetransmitType, Role},
    owner::Owner,
};
use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;
const CLIENT: (u32, &str, u32) = (11, "python3", 100);
const SERVER: (u32, &str, u32) = (22, "nginx", 200);

fn zeros<T: zerocopy::FromBytes>() -> T {
    T::read_from_bytes(&vec![0; size_of::<T>()]).unwrap()
}

fn header(kind: EventKind, netns: u32, ktime_ns: u64) -> EventHeader {
    EventHeader {
        ktime_ns,
        kind: kind as u32,
        netns,
    }
}

fn owner((netns, name, pid): (u32, &str, u32)) -> Owner {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    Owner {
        cgroup: 0,
        net: 0,
        netns,
        pid,
        comm,
    }
}

fn ends(local: (u8, u16), remote: (u8, u16)) -> Endpoints {
    let address = |last| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[10, 0, 0, last]);
        bytes
    };
    Endpoints {
        local_address: address(local.0),
        remote_address: address(remote.0),
        local_port: local.1,
        remote_port: remote.1,
        family: libc::AF_INET.try_into().unwrap(),
        reserved: 0,
    }
}

const C: (u8, u16) = (1, 40_000);
const V: (u8, u16) = (2, 80);

fn syn_again(at_ns: u64, began_ns: u64) -> Event {
    Event::Retransmit(Retransmit {
        header: header(EventKind::Retransmit, CLIENT.0, at_ns),
        sk: 0xc1,
        ends: ends(C, V),
        owner: owner(CLIENT),
        age_ns: at_ns - began_ns,
        segments: 1,
        kind: RetransmitType::Syn as u8,
        role: Role::Client as u8,
        ..zeros()
    })
}

fn connect(at_ns: u64, began_ns: u64, again: u32, failure: u8) -> Event {
    Event::Connect(Connect {
        header: header(EventKind::Connect, CLIENT.0, at_ns),
        sk: 0xc1,
        ends: ends(C, V),
        owner: owner(CLIENT),
        latency_ns: at_ns - began_ns,
        syn_retransmits: again,
        failure,
        ..zeros()
    })
}

fn accept(at_ns: u64, waited_ns: u64) -> Event {
    Event::Accept(Accept {
        header: header(EventKind::Accept, SERVER.0, at_ns),
        sk: 0x51,
        ends: ends(V, C),
        owner: owner(SERVER),
        latency_ns: waited_ns,
    })
}

fn reset(at_ns: u64, at_server: bool, direction: Direction, idle_ns: u64) -> Event {
    let (who, ends, sk, role) = if at_server {
        (SERVER, ends(V, C), 0x51, Role::Server)
    } else {
        (CLIENT, ends(C, V), 0xc1, Role::Client)
    };
    Event::Reset(Reset {
        header: header(EventKind::Reset, who.0, at_ns),
        sk,
        ends,
        owner: owner(who),
        idle_ns,
        reason: NO_RESET_REASON,
        class: ResetClass::Connection as u8,
        direction: direction as u8,
        role: role as u8,
        state: 1,
        ..zeros()
    })
}

fn reading(at_ns: u64, drops: u32, queue: u32) -> ListenerReading {
    let mut reading: ListenerReading = zeros();
    reading.socket.sk = 0x11;
    reading.socket.ktime_ns = at_ns;
    reading.socket.drops = drops;
    reading.socket.ack_backlog = queue;
    reading.socket.max_ack_backlog = 3;
    reading.listener.owner = owner(SERVER);
    reading.listener.local_port = V.1;
    reading.listener.family = libc::AF_INET6.try_into().unwrap();
    reading
}

fn at(end: (u8, u16)) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, end.0)), end.1)
}

const BY_IDENTITY: Counting = Counting::ByIdentity { stages: true };

#[test]
fn an_overflow_is_told_from_both_ends() {
    let mut stories = Stories::default();
    let began = 10 * S;
    stories.look(&[reading(began - 50 * MS, 0, 4)], BY_IDENTITY);
    stories.look(&[reading(began + 50 * MS, 1, 4)], BY_IDENTITY);
    stories.look(&[reading(began + S - 50 * MS, 1, 4)], BY_IDENTITY);
    stories.look(&[reading(began + S + 50 * MS, 2, 4)], BY_IDENTITY);
    stories.look(&[reading(began + 3 * S + 50 * MS, 2, 1)], BY_IDENTITY);
    for event in [
        syn_again(began + S, began),
        syn_again(began + 3 * S, began),
        connect(began + 3 * S + MS, began, 2, CONNECTED),
        accept(began + 3100 * MS, 99 * MS),
        reset(began + 3200 * MS, false, Direction::Sent, 12 * MS),
        reset(began + 3200 * MS, true, Direction::Received, 11 * MS),
    ] {
        stories.take(&event, &mut ());
    }
    assert_eq!(stories.len(), 1);
    let story = stories.of(at(V), at(C)).unwrap();
    assert_eq!(
        story.text,
        "connect from 10.0.0.1:40000 (python3 100) to 10.0.0.2:80 (nginx 200): SYN retransmitted 2 \
         times, the accept queue of 10.0.0.2:80 full at both, connected after 3.00 s, accepted 3.10 s \
         after the first SYN (99.0 ms of it in the accept queue), reset by the client, after 12.0 ms \
         idle in ESTABLISHED"
    );
    assert_eq!((story.unanswered.syns, story.unanswered.queue_full), (2, 2));
    let json = serde_json::to_value(&story).unwrap();
    assert_eq!(json["client"]["process"], "python3");
    assert_eq!(json["server"]["address"], "10.0.0.2:80");
    assert_eq!(json["moments"][0]["event"], "retransmit");
    assert_eq!(json["moments"][0]["type"], "syn");
    assert_eq!(json["moments"][0]["end"], "client");
}

#[test]
fn without_the_other_end_nothing_is_claimed_of_it() {
    let mut stories = Stories::default();
    let began = 10 * S;
    stories.look(&[reading(began - 50 * MS, 0, 4)], BY_IDENTITY);
    stories.look(&[reading(began + 50 * MS, 1, 4)], BY_IDENTITY);
    stories.take(&syn_again(began + S, began), &mut ());
    let failed = connect(began + 3 * S, began, 1, ConnectFailure::TimedOut as u8);
    stories.take(&failed, &mut ());
    let story = stories.notable(5).remove(0);
    // A listener of that port in some namespace dropped just then; whether it was this one's is not
    // known.
    assert_eq!(story.unanswered.queue_full, 0);
    assert_eq!(story.unanswered.syns, 2);
    assert!(!story.server.here);
    assert_eq!(
        story.text,
        "connect from 10.0.0.1:40000 (python3 100) to 10.0.0.2:80: SYN retransmitted once, given up by \
         the kernel after 3.00 s without an answer"
    );
}

/// A listener that has not said a word of this connection is known by its address, or by others that
/// have the same one.
#[test]
fn a_silent_listener_is_known_by_its_address() {
    let began = 10 * S;
    let looks = |specific: bool| {
        let look = move |at_ns, drops| {
            let mut reading = reading(at_ns, drops, 4);
            if specific {
                reading.listener.family = libc::AF_INET.try_into().unwrap();
                reading.listener.local_address[..4].copy_from_slice(&[10, 0, 0, V.0]);
            }
            reading
        };
        [look(began - 50 * MS, 0), look(began + 50 * MS, 1)]
    };
    let full = |stories: &mut Stories| {
        stories.take(&syn_again(began + S, began), &mut ());
        let failed = connect(began + 3 * S, began, 1, ConnectFailure::TimedOut as u8);
        stories.take(&failed, &mut ());
        let remote = at(V);
        stories
            .of_port(CLIENT.0, C.1, remote)
            .unwrap()
            .unanswered
            .queue_full
    };
    let mut stories = Stories::default();
    for reading in looks(true) {
        stories.look(&[reading], BY_IDENTITY);
    }
    assert_eq!(full(&mut stories), 1);
    assert!(stories.of_port(CLIENT.0 + 1, C.1, at(V)).is_none());

    // On any address: by another connection of that address.
    let other = |netns, ktime_ns| {
        Event::Retransmit(Retransmit {
            header: header(EventKind::Retransmit, netns, ktime_ns),
            sk: 0x77,
            ends: ends((V.0, 50_000), (9, 443)),
            owner: owner(SERVER),
            role: Role::Client as u8,
            ..zeros()
        })
    };
    let mut stories = Stories::default();
    for reading in looks(false) {
        stories.look(&[reading], BY_IDENTITY);
    }
    stories.take(&other(SERVER.0, began), &mut ());
    assert_eq!(full(&mut stories), 1);
    // An address that two namespaces have is nobody's.
    stories.take(&other(SERVER.0 + 1, began), &mut ());
    assert_eq!(full(&mut stories), 0);
}

#[test]
fn final_acks_are_joined_by_the_ends_in_the_packet() {
    let mut stories = Stories::default();
    for n in 0..3 {
        let dropped = ListenDrop {
            header: header(EventKind::ListenDrop, SERVER.0, 10 * S + n * MS),
            sk: 0x11,
            ends: ends(V, C),
            owner: owner(SERVER),
            ack_backlog: 4,
            max_ack_backlog: 3,
            ..zeros()
        };
        stories.take(&Event::ListenDrop(dropped), &mut ());
    }
    stories.take(&connect(10 * S, 10 * S - MS, 0, CONNECTED), &mut ());
    let story = stories.of(at(C), at(V)).unwrap();
    assert_eq!(
        story.text,
        "connect from 10.0.0.1:40000 (python3 100) to 10.0.0.2:80 (nginx 200): handshake dropped 3 \
         times by the listener, its accept queue full (4 waiting, limit 3), connected after 1.0 ms"
    );
}

#[test]
fn a_second_connection_with_the_same_ends_is_another_story() {
    let mut stories = Stories::default();
    let refused = ConnectFailure::Refused as u8;
    stories.take(&connect(10 * S, 10 * S - MS, 0, refused), &mut ());
    stories.take(&connect(11 * S, 11 * S - MS, 0, refused), &mut ());
    assert_eq!(stories.len(), 2);
    assert_eq!(stories.of(at(C), at(V)).unwrap().until_ns, 11 * S);
    // Other networks with the same addresses.
    let Event::Connect(mut elsewhere) = connect(12 * S, 12 * S - MS, 0, refused) else {
        unreachable!()
    };
    elsewhere.header.netns = 33;
    stories.take(&Event::Connect(elsewhere), &mut ());
    assert_eq!(stories.len(), 3);
}

#[test]
fn loopback_addresses_of_two_namespaces_are_not_joined() {
    let mut stories = Stories::default();
    for netns in [1, 2] {
        let Event::Reset(mut event) = reset(S, true, Direction::Sent, 0) else {
            unreachable!()
        };
        event.ends.local_address = [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        event.ends.remote_address = event.ends.local_address;
        event.header.netns = netns;
        stories.take(&Event::Reset(event), &mut ());
    }
    assert_eq!(stories.len(), 2);
}

#[test]
fn what_has_to_make_room_is_counted_and_time_takes_the_rest() {
    let mut stories = Stories::new(10);
    for port in 0..30 {
        let Event::Connect(mut event) = connect(S, S - MS, 1, CONNECTED) else {
            unreachable!()
        };
        event.ends.local_port = 1000 + port;
        stories.take(&Event::Connect(event), &mut ());
    }
    assert_eq!((stories.len(), stories.evicted()), (10, 20));
    assert_eq!(stories.notable(3).len(), 3);
    stories.expire(S + KEEP_NS);
    assert_eq!(stories.len(), 10);
    stories.expire(S + KEEP_NS + 1);
    assert!(stories.is_empty());
}

#[test]
fn one_connections_moments_are_bounded() {
    let mut stories = Stories::default();
    for n in 0..1000 {
        stories.take(&syn_again(S + n * MS, S - MS), &mut ());
    }
    let story = stories.of(at(C), at(V)).unwrap();
    assert!(story.moments.len() < 100);
    assert_eq!(story.moments.len() + story.left_out as usize, 1000);
}

proptest! {
    /// Whatever bytes the ring holds, in whatever order: no panic, no more than what fits, and every
    /// story can be told.
    #[test]
    fn any_events_make_bounded_stories(
        records in prop::collection::vec(
            (0..7_u32, 0..4_u64, any::<[u8; 32]>(), 0..3_u8, 0..3_u8),
            0..200,
        ),
    ) {
        let mut stories = Stories::new(16);
        let mut clock = 0;
        for (kind, later, noise, local, remote) in records {
            let kind = EventKind::ALL[kind as usize];
            clock += later * MS;
            let mut bytes = noise.repeat(20);
            bytes.truncate(kind.size());
            bytes[..8].copy_from_slice(&clock.to_ne_bytes());
            bytes[8..12].copy_from_slice(&(kind as u32).to_ne_bytes());
            let mut event = Event::decode(&bytes).unwrap();
            let of = match &mut event {
                Event::Retransmit(it) => Some((&mut it.ends, &mut it.kind, &mut it.role)),
                Event::Reset(it) => Some((&mut it.ends, &mut it.class, &mut it.role)),
                _ => None,
            };
            if let Some((place, kind, role)) = of {
                *place = ends((local, 80), (remote, 40_000));
                (*kind, *role) = (*kind % 6, *role % 2);
            }
            stories.take(&event, &mut ());
            prop_assert!(stories.len() <= 16);
        }
        for story in stories.notable(100) {
            prop_assert!(story.text.len() < 10_000);
            prop_assert!(story.moments.iter().all(|moment| moment.at_ns <= moment.until_ns));
            serde_json::to_string(&story).unwrap();
        }
    }
}
