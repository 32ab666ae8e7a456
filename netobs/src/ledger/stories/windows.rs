//! When listeners dropped: what explains a SYN that nobody answered.
//!
//! On kernels without kprobes a SYN that a listener drops has no event. But each listener is looked
//! at ten times a second, and a drop shows at the next look.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use netobs_common::ledger::ListenerReading;

use super::super::listeners::{Counting, address};

/// Listening sockets whose drops are remembered.
const MAX_LISTENERS: usize = 1024;
/// Stretches of time that are remembered of one.
const MAX_WINDOWS: usize = 64;
/// Addresses whose network namespace is remembered.
const MAX_HOMES: usize = 4096;

/// A SYN is dropped a little after it was sent, and counted a little before or after the clock is read.
const SLACK_NS: u64 = 20_000_000;

/// A stretch of time in which every look showed new drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    address: IpAddr,
    from_ns: u64,
    to_ns: u64,
    /// The accept queue was full at its beginning or end.
    pub(super) full: bool,
}

#[derive(Debug, Default)]
struct Track {
    drops: i64,
    looked_ns: u64,
    /// The accept queue was full then.
    full: bool,
}

/// The network namespace that an address is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Home {
    /// `None`: more than one has it.
    netns: Option<u32>,
    seen_ns: u64,
}

/// The drops of all listeners, over time.
#[derive(Debug, Default)]
pub(super) struct Windows {
    tracks: HashMap<u64, Track>,
    windows: HashMap<(u32, u16), VecDeque<Window>>,
    homes: HashMap<IpAddr, Home>,
    looked_ns: u64,
}

impl Windows {
    /// Takes in one look.
    pub(super) fn look(&mut self, readings: &[ListenerReading], counting: Counting) {
        let mut latest = self.looked_ns;
        for reading in readings {
            latest = latest.max(reading.socket.ktime_ns);
            let drops = match counting {
                Counting::InKernel => {
                    let all = reading.listener.counts.drops.iter().flatten().sum::<u64>();
                    i64::try_from(all).unwrap_or(i64::MAX)
                }
                Counting::ByIdentity { .. } | Counting::Bounded => reading.listen_drops(),
            };
            if drops > 0 {
                self.note(reading, drops);
            }
        }
        self.looked_ns = latest;
    }

    fn note(&mut self, reading: &ListenerReading, drops: i64) {
        let now = reading.socket.ktime_ns;
        let before = self.looked_ns;
        if self.tracks.len() >= MAX_LISTENERS && !self.tracks.contains_key(&reading.socket.sk) {
            return;
        }
        let track = self.tracks.entry(reading.socket.sk).or_default();
        let from_ns = track.looked_ns.max(before);
        let grown = drops > track.drops;
        track.drops = drops;
        track.looked_ns = now;
        let full = reading.socket.ack_backlog > reading.socket.max_ack_backlog;
        // It may have been emptied since the drop.
        let was_full = std::mem::replace(&mut track.full, full);
        if !grown || from_ns == 0 {
            return;
        }
        let listener = &reading.listener;
        let window = Window {
            address: address(listener.family, listener.local_address).to_canonical(),
            from_ns,
            to_ns: now,
            full: full || was_full,
        };
        let key = (listener.owner.netns, listener.local_port);
        let windows = self.windows.entry(key).or_default();
        if let Some(last) = windows.back_mut()
            && last.to_ns == from_ns
            && (last.address, last.full) == (window.address, window.full)
        {
            last.to_ns = now;
            return;
        }
        if windows.len() == MAX_WINDOWS {
            windows.pop_front();
        }
        windows.push_back(window);
    }

    /// Notes that a socket with this local address is in that network namespace. An address that
    /// several have is nobody's.
    pub(super) fn learn(&mut self, local: IpAddr, netns: u32, at_ns: u64) {
        if local.is_loopback() || local.is_unspecified() {
            return;
        }
        if let Some(home) = self.homes.get_mut(&local) {
            home.netns = home.netns.filter(|known| *known == netns);
            home.seen_ns = home.seen_ns.max(at_ns);
        } else if self.homes.len() < MAX_HOMES {
            let home = Home {
                netns: Some(netns),
                seen_ns: at_ns,
            };
            self.homes.insert(local, home);
        }
    }

    /// The network namespace of a listener from which no event of this connection came: the one in
    /// which sockets with its address are, else the only one in which a listener on this very address
    /// dropped.
    pub(super) fn home(&self, local: IpAddr, port: u16) -> Option<u32> {
        if let Some(home) = self.homes.get(&local) {
            return home.netns;
        }
        let has = |windows: &VecDeque<Window>| windows.iter().any(|it| it.address == local);
        let all = self.windows.iter();
        let mut own = all.filter(|((_, of), windows)| *of == port && has(windows));
        let ((netns, _), _) = own.next()?;
        own.next().is_none().then_some(*netns)
    }

    /// What a listener on this address was doing at that time, if it dropped.
    pub(super) fn at(&self, netns: u32, local: IpAddr, port: u16, at_ns: u64) -> Option<&Window> {
        let here = |window: &&Window| {
            (window.address.is_unspecified() || window.address == local)
                && window.from_ns <= at_ns.saturating_add(SLACK_NS)
                && at_ns <= window.to_ns.saturating_add(SLACK_NS)
        };
        let windows = self.windows.get(&(netns, port))?;
        windows.iter().filter(here).max_by_key(|window| window.full)
    }

    /// Forgets what was before.
    pub(super) fn forget_before(&mut self, oldest_ns: u64) {
        self.windows.retain(|_, windows| {
            windows.retain(|window| window.to_ns >= oldest_ns);
            !windows.is_empty()
        });
        self.tracks.retain(|_, track| track.looked_ns >= oldest_ns);
        self.homes.retain(|_, home| home.seen_ns >= oldest_ns);
    }
}
