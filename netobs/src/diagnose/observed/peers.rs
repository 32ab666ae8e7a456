//! Who is at the other end, by the events: addresses are no labels, so the books do not know.

use std::{collections::HashMap, net::IpAddr};

use netobs_common::{
    event::{Endpoints, Reset, Retransmit},
    ledger::{Direction, ResetClass, RetransmitType, Role},
};

use super::place;
use crate::ledger::listeners::address;

/// A connection that is reset within this time was never meant to be used for long: the probes of load
/// balancers last a fraction of a second, with patience for a slow host.
const SHORT_NS: u64 = 2_000_000_000;
/// Checks come at a pace of seconds; what comes denser than this is traffic.
const DENSE_NS: f64 = 20_000_000.0;
/// So many gaps tell a pace.
const GAPS: u64 = 4;
/// Of gaps at a regular pace, the standard deviation is less than this part of their mean: timers
/// of a busy host are late by some milliseconds, load balancers spread their checks a little.
const IRREGULAR: f64 = 0.25;
/// `bytes_acked` counts the SYN of a client as one.
const SYN_BYTE: u64 = 1;

/// Resets of connections with one peer, in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Resets {
    /// All of them.
    pub(in super::super) all: u64,
    /// Of connections that lasted a moment only.
    short: u64,
    /// Of those, without a byte of data either way.
    empty: u64,
    last_ns: u64,
    gaps: u64,
    sum_ns: f64,
    squares: f64,
}

impl Resets {
    #[allow(clippy::cast_precision_loss, reason = "gaps of seconds in nanoseconds")]
    fn take(&mut self, event: &Reset) {
        self.all += 1;
        // `age_ns` is 0 for connections older than netobs: they are not short.
        let short = event.age_ns != 0 && event.age_ns <= SHORT_NS;
        let silent = event.bytes_received == 0 && event.bytes_acked <= SYN_BYTE;
        self.short += u64::from(short);
        self.empty += u64::from(short && silent);
        let at_ns = event.header.ktime_ns;
        if self.last_ns != 0 {
            let gap = at_ns.abs_diff(self.last_ns) as f64;
            self.gaps += 1;
            self.sum_ns += gap;
            self.squares += gap * gap;
        }
        self.last_ns = self.last_ns.max(at_ns);
    }

    /// How many look like health checks: short ones without a byte; or with some, when all that this
    /// peer does is short and comes at a regular pace.
    pub(in super::super) fn checks(&self) -> u64 {
        if self.gaps > 0 && self.mean_ns() < DENSE_NS {
            return 0;
        }
        if self.short == self.all && self.is_regular() {
            return self.all;
        }
        self.empty
    }

    /// Those that are no health checks.
    pub(in super::super) fn real(&self) -> u64 {
        self.all - self.checks().min(self.all)
    }

    #[allow(clippy::cast_precision_loss, reason = "a count")]
    fn mean_ns(&self) -> f64 {
        self.sum_ns / (self.gaps.max(1) as f64)
    }

    #[allow(clippy::cast_precision_loss, reason = "a count")]
    fn is_regular(&self) -> bool {
        let mean = self.mean_ns();
        let variance = self.squares / (self.gaps.max(1) as f64) - mean * mean;
        self.gaps >= GAPS && variance.max(0.0).sqrt() < IRREGULAR * mean
    }
}

/// What was seen of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Peer {
    /// Segments sent to it again, SYNs not counted.
    pub(in super::super) retransmitted: u64,
    /// Of those, by timeout: it was silent, not merely out of order.
    pub(in super::super) timeouts: u64,
    /// SYNs and SYN-ACKs to it that were sent again.
    pub(in super::super) syns: u64,
    /// Connections that it reset.
    pub(in super::super) received: Resets,
    /// Connections that this end aborted.
    pub(in super::super) sent: Resets,
}

/// The peers of a window: by role and port (the local one of a server, the remote one of a client)
/// and address.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Peers {
    seen: HashMap<(u32, Role, u16, IpAddr), Peer>,
}

impl Peers {
    /// The peers of a server's port, or those to whose port a client connects (0: any), by address.
    pub(in super::super) fn of(
        &self,
        netns: u32,
        role: Role,
        port: u16,
    ) -> impl Iterator<Item = (IpAddr, &Peer)> {
        let wanted = move |(of, is, at, _): &(u32, Role, u16, IpAddr)| {
            *of == netns && *is == role && (port == 0 || port == *at)
        };
        let all = self.seen.iter().filter(move |(key, _)| wanted(key));
        all.map(|((_, _, _, address), peer)| (*address, peer))
    }

    /// Segments sent again to each address, and those by timeout; most first.
    pub(in super::super) fn retransmits(&self, netns: u32) -> Vec<(IpAddr, u64, u64)> {
        self.sums(netns, |peer| (peer.retransmitted, peer.timeouts))
    }

    /// Handshakes of which a packet was sent again, by address; most first.
    pub(in super::super) fn handshakes(&self, netns: u32) -> Vec<(IpAddr, u64, u64)> {
        self.sums(netns, |peer| (peer.syns, 0))
    }

    fn sums(&self, netns: u32, of: impl Fn(&Peer) -> (u64, u64)) -> Vec<(IpAddr, u64, u64)> {
        let mut sums: HashMap<IpAddr, (u64, u64)> = HashMap::new();
        let here = self.seen.iter().filter(|((at, ..), _)| *at == netns);
        for ((.., address), peer) in here {
            let (count, part) = of(peer);
            if count > 0 {
                let sum = sums.entry(*address).or_default();
                *sum = (sum.0 + count, sum.1 + part);
            }
        }
        let mut all: Vec<_> = sums
            .into_iter()
            .map(|(at, (n, part))| (at, n, part))
            .collect();
        all.sort_by_key(|(at, count, _)| (std::cmp::Reverse(*count), *at));
        all
    }

    fn peer(&mut self, netns: u32, role: u8, ends: &Endpoints) -> Option<&mut Peer> {
        let (role, port) = if role == Role::Server as u8 {
            (Role::Server, ends.local_port)
        } else {
            (Role::Client, ends.remote_port)
        };
        let remote = address(ends.family, ends.remote_address).to_canonical();
        place(&mut self.seen, (netns, role, port, remote))
    }

    pub(super) fn retransmit(&mut self, event: &Retransmit) {
        let Some(peer) = self.peer(event.header.netns, event.role, &event.ends) else {
            return;
        };
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

    pub(super) fn reset(&mut self, event: &Reset) {
        let theirs = event.direction == Direction::Received as u8;
        let class = if theirs {
            ResetClass::Connection
        } else {
            ResetClass::Abort
        };
        if event.class != class as u8 {
            return;
        }
        let Some(peer) = self.peer(event.header.netns, event.role, &event.ends) else {
            return;
        };
        if theirs {
            peer.received.take(event);
        } else {
            peer.sent.take(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use netobs_common::event::{EventHeader, NO_RESET_REASON};

    use super::*;

    fn reset(at_ms: u64, age_ms: u64, bytes: u64) -> Reset {
        Reset {
            header: EventHeader {
                ktime_ns: at_ms * 1_000_000,
                kind: 5,
                netns: 1,
            },
            sk: 1,
            ends: Endpoints::default(),
            owner: netobs_common::owner::Owner::default(),
            age_ns: age_ms * 1_000_000,
            idle_ns: 0,
            bytes_acked: 1 + bytes,
            bytes_received: bytes,
            reason: NO_RESET_REASON,
            class: 0,
            direction: 1,
            role: 0,
            state: 1,
        }
    }

    fn checks(resets: impl IntoIterator<Item = Reset>) -> (u64, u64) {
        let mut sum = Resets::default();
        resets.into_iter().for_each(|event| sum.take(&event));
        (sum.checks(), sum.real())
    }

    #[test]
    fn a_regular_pace_or_no_byte_makes_a_check() {
        // Every two seconds, nothing said.
        assert_eq!(checks((0..8).map(|n| reset(n * 2_000, 3, 0))), (8, 0));
        // Every second give or take a tenth, a request and its answer.
        let spread = (0..8).map(|n| reset(n * 1_000 + n * 37 % 100, 20, 400));
        assert_eq!(checks(spread), (8, 0));
    }

    #[test]
    fn what_is_used_or_comes_in_heaps_is_no_check() {
        // Used for a minute.
        assert_eq!(
            checks((0..8).map(|n| reset(n * 1_000, 60_000, 400))),
            (0, 8)
        );
        // Short, with data, now and then.
        let odd = [100, 900, 1_000, 5_000, 5_100, 9_000].map(|at| reset(at, 20, 400));
        assert_eq!(checks(odd), (0, 6));
        // Hundreds in a second.
        assert_eq!(checks((0..300).map(|n| reset(n * 3, 1, 0))), (0, 300));
    }
}
