//! What the events of a window tell beyond the books: when, with whom, and what was asked for.

mod lookups;
mod peers;
mod times;

use std::{collections::HashMap, net::IpAddr};

use netobs_common::{
    connection::ConnectFailure,
    event::{Connect, Event, ListenDrop},
    ledger::{Reason, RetransmitType, Role},
};

pub(super) use self::{
    lookups::Asked,
    peers::{Peer, Resets},
    times::Times,
};
use self::{lookups::Lookups, peers::Peers};

use super::past::port;
use crate::{ledger::listeners::address, sys::owner::Comm};

/// Listeners and namespaces whose times are kept; those of others are not told.
const MOST: usize = 4096;

/// What was seen in a window.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    peers: Peers,
    lookups: Lookups,
    overflows: HashMap<(u32, IpAddr, u16), Overflows>,
    retransmits: HashMap<u32, Times>,
    /// By network namespace, process and port, as labels show it.
    hasty: HashMap<(u32, Comm, u16), u64>,
}

/// The first SYN is sent again after 1 s (RFC 6298, 2.1): who gives up in less than half of that has
/// not waited for an answer.
const HASTY_NS: u64 = 500_000_000;

/// When a listener's accept queue overflowed, and how long it was then.
#[derive(Clone, Debug, Default)]
pub(super) struct Overflows {
    pub(super) times: Times,
    /// The longest queue at a drop.
    pub(super) longest: u32,
    /// The highest limit at a drop; 0 when none was told.
    pub(super) limit: u32,
}

impl Observed {
    /// Takes in an event.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Retransmit(event) => {
                self.peers.retransmit(event);
                let data = event.kind != RetransmitType::Syn as u8
                    && event.kind != RetransmitType::SynAck as u8;
                if data && let Some(times) = place(&mut self.retransmits, event.header.netns) {
                    times.add(event.header.ktime_ns, event.segments.into());
                }
            }
            Event::Reset(event) => self.peers.reset(event),
            Event::ListenDrop(event) => self.drop(event),
            Event::Dns(event) => self.lookups.take(event),
            Event::Connect(event) => self.connect(event),
            Event::Listener(_) | Event::Accept(_) => {}
        }
    }

    fn drop(&mut self, event: &ListenDrop) {
        if event.cause != Reason::AcceptQueueFull as u8 {
            return;
        }
        let ends = &event.ends;
        let key = (
            event.header.netns,
            address(ends.family, ends.local_address).to_canonical(),
            ends.local_port,
        );
        if let Some(seen) = place(&mut self.overflows, key) {
            seen.times.add(event.header.ktime_ns, event.drops.into());
            seen.longest = seen.longest.max(event.ack_backlog);
            seen.limit = seen.limit.max(event.max_ack_backlog);
        }
    }

    fn connect(&mut self, event: &Connect) {
        let abandoned = event.failure == ConnectFailure::Abandoned as u8;
        if !abandoned || event.latency_ns >= HASTY_NS || event.syn_retransmits > 0 {
            return;
        }
        let process = Comm::from_bytes(&event.owner.comm);
        let port = port(Role::Client, 0, event.ends.remote_port);
        if let Some(count) = place(&mut self.hasty, (event.header.netns, process, port)) {
            *count += 1;
        }
    }

    /// Connects that the process gave up before a SYN was sent again, such as the slower of two that it
    /// had begun at once (RFC 8305).
    pub(super) fn hasty(&self, netns: u32, process: Comm, port: u16) -> u64 {
        self.hasty
            .get(&(netns, process, port))
            .copied()
            .unwrap_or(0)
    }

    /// Who is at the other end.
    pub(super) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// What a process asked name servers for, as far as it was slow, failed or remained unanswered.
    pub(super) fn asked(&self, netns: u32, process: Comm) -> Option<&Asked> {
        self.lookups.of(netns, process)
    }

    /// Whether there was any such lookup.
    pub(super) fn has_lookups(&self) -> bool {
        !self.lookups.is_empty()
    }

    /// When data was sent again.
    pub(super) fn retransmits(&self, netns: u32) -> Option<&Times> {
        self.retransmits.get(&netns)
    }

    /// When accept queues on a port overflowed: of a listener on every address, a dropped packet shows
    /// the address that it went to.
    pub(super) fn overflows(&self, netns: u32, listens_on: IpAddr, port: u16) -> Option<Overflows> {
        let mut sum: Option<Overflows> = None;
        for ((of, address, at), seen) in &self.overflows {
            let same = listens_on.is_unspecified() || *address == listens_on.to_canonical();
            if *of != netns || *at != port || !same {
                continue;
            }
            let sum = sum.get_or_insert_default();
            sum.times.merge(&seen.times);
            sum.longest = sum.longest.max(seen.longest);
            sum.limit = sum.limit.max(seen.limit);
        }
        sum
    }
}

/// The entry of a key, as long as there is room.
fn place<K: Eq + std::hash::Hash, V: Default>(map: &mut HashMap<K, V>, key: K) -> Option<&mut V> {
    if map.len() >= MOST && !map.contains_key(&key) {
        return None;
    }
    Some(map.entry(key).or_default())
}
