//! Who is at the other end, by the events: addresses are no labels, so the books do not know.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netobs_common::{
    event::{Endpoints, Event, Reset, Retransmit},
    ledger::{Direction, ResetClass, RetransmitType, Role},
};

/// Peers that are kept apart; what does not fit is counted together.
const MOST: usize = 4096;
/// A connection that is reset within this time, and has received nothing, was never meant to be
/// used: the probes of load balancers last a fraction of a second, with patience for a slow host.
const SHORT_NS: u64 = 2_000_000_000;

/// What was seen of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Segments sent to it again, SYNs not counted.
    pub retransmitted: u64,
    /// Of those, by timeout: it was silent, not merely out of order.
    pub timeouts: u64,
    /// SYNs to it that were sent again.
    pub syns: u64,
    /// Connections that it reset.
    pub resets: u64,
    /// Of those, the short ones without a byte received.
    pub empty_resets: u64,
}

impl Peer {
    fn add(&mut self, more: &Self) {
        self.retransmitted += more.retransmitted;
        self.timeouts += more.timeouts;
        self.syns += more.syns;
        self.resets += more.resets;
        self.empty_resets += more.empty_resets;
    }
}

/// The peers of a window, by the local server port (0: as a client) and address.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    seen: HashMap<(u32, u16, IpAddr), Peer>,
    others: Peer,
}

impl Peers {
    /// Takes in an event.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Retransmit(event) => self.retransmit(event),
            Event::Reset(event) => self.reset(event),
            _ => {}
        }
    }

    /// The peers of a namespace and port, by address.
    pub fn of(&self, netns: u32, port: Option<u16>) -> impl Iterator<Item = (IpAddr, &Peer)> {
        self.seen
            .iter()
            .filter(move |((of, at, _), _)| *of == netns && port.is_none_or(|port| port == *at))
            .map(|((_, _, address), peer)| (*address, peer))
    }

    /// Adds what was seen in another window.
    pub fn merge(&mut self, other: &Self) {
        for (key, peer) in &other.seen {
            self.entry(*key).add(peer);
        }
        self.others.add(&other.others);
    }

    /// What did not fit.
    #[must_use]
    pub fn others(&self) -> &Peer {
        &self.others
    }

    fn peer(&mut self, netns: u32, role: u8, ends: &Endpoints) -> &mut Peer {
        let port = if role == Role::Server as u8 {
            ends.local_port
        } else {
            0
        };
        self.entry((netns, port, remote(ends)))
    }

    fn entry(&mut self, key: (u32, u16, IpAddr)) -> &mut Peer {
        if self.seen.len() >= MOST && !self.seen.contains_key(&key) {
            return &mut self.others;
        }
        self.seen.entry(key).or_default()
    }

    fn retransmit(&mut self, event: &Retransmit) {
        let peer = self.peer(event.header.netns, event.role, &event.ends);
        let segments = u64::from(event.segments);
        if event.kind == RetransmitType::Syn as u8 || event.kind == RetransmitType::SynAck as u8 {
            peer.syns += segments;
            return;
        }
        peer.retransmitted += segments;
        if event.kind == RetransmitType::Timeout as u8 {
            peer.timeouts += segments;
        }
    }

    fn reset(&mut self, event: &Reset) {
        let theirs = event.direction == Direction::Received as u8
            && event.class == ResetClass::Connection as u8;
        if !theirs {
            return;
        }
        let peer = self.peer(event.header.netns, event.role, &event.ends);
        peer.resets += 1;
        // `age_ns` is 0 for connections older than netobs: they are not short.
        let short = event.age_ns != 0 && event.age_ns <= SHORT_NS;
        peer.empty_resets += u64::from(short && event.bytes_received == 0);
    }
}

fn remote(ends: &Endpoints) -> IpAddr {
    if i32::from(ends.family) == libc::AF_INET {
        let [a, b, c, d, ..] = ends.remote_address;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        Ipv6Addr::from(ends.remote_address).to_canonical()
    }
}
