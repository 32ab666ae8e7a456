//! The story of a connection: events of one socket, and of both ends where both are on this host,
//! joined into one record.
//!
//! Two events belong to one connection when their addresses and ports are the same or mirrored: also
//! across network namespaces, as long as nothing on the way translates addresses. On loopback
//! addresses, which every namespace has, the namespace must be the same too. Where that is not
//! enough (a second connection with the same ends), the socket and the time at which it began tell
//! which it is; in doubt a new story begins, and two connections never share one.
//!
//! What is kept is bounded by number and by time, and what had to make room is counted.

mod record;
mod story;
mod windows;
mod words;

use std::net::SocketAddr;

use lru::LruCache;
use netobs_common::{event::Event, ledger::ListenerReading};

pub use self::story::{End, Moment, Side, Story, Unanswered, What};
use self::{
    record::{Key, Record, Seen},
    windows::Windows,
};
use super::{listeners::Counting, owner::Workloads};

/// Connections that are remembered: with what is usual to happen to one, about 2 MB.
const MAX_STORIES: usize = 4096;
/// How long after its latest event.
const KEEP_NS: u64 = 300 * 1_000_000_000;

/// The stories of the connections of which there was an event lately.
#[derive(Debug)]
pub struct Stories {
    records: LruCache<Key, Record>,
    most: usize,
    windows: Windows,
    retired: u32,
    evicted: u64,
    latest_ns: u64,
}

impl Default for Stories {
    fn default() -> Self {
        Self::new(MAX_STORIES)
    }
}

impl Stories {
    /// At most `most` stories.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            records: LruCache::unbounded(),
            most,
            windows: Windows::default(),
            retired: 0,
            evicted: 0,
            latest_ns: 0,
        }
    }

    /// Takes in an event; what is not about a connection is passed over. `workloads` tells containers
    /// by cgroup, and is asked once for each end.
    pub fn take(&mut self, event: &Event, workloads: &mut dyn Workloads) {
        let Some(seen) = Seen::of(event) else { return };
        self.latest_ns = self.latest_ns.max(seen.at_ns);
        if seen.has_socket() {
            self.windows.learn(seen.local.ip(), seen.netns, seen.at_ns);
        }
        let (key, side) = Key::of(&seen);
        match self.records.get_mut(&key) {
            Some(record) if record.fits(side, &seen) => record.add(side, &seen, workloads),
            Some(_) => {
                if let Some(old) = self.records.pop(&key) {
                    self.retired = self.retired.wrapping_add(1).max(1);
                    self.records.put(key.retired(self.retired), old);
                }
                self.begin(key, side, &seen, workloads);
            }
            None => self.begin(key, side, &seen, workloads),
        }
    }

    fn begin(&mut self, key: Key, side: usize, seen: &Seen, workloads: &mut dyn Workloads) {
        let mut record = Record::default();
        record.add(side, seen, workloads);
        self.records.put(key, record);
        while self.records.len() > self.most {
            self.records.pop_lru();
            self.evicted += 1;
        }
    }

    /// Takes in one look at the listeners: it tells when each dropped.
    pub fn look(&mut self, readings: &[ListenerReading], counting: Counting) {
        self.windows.look(readings, counting);
    }

    /// Forgets what has had no event for five minutes.
    pub fn expire(&mut self, now_ns: u64) {
        let oldest_ns = now_ns.saturating_sub(KEEP_NS);
        while self
            .records
            .peek_lru()
            .is_some_and(|(_, record)| record.touched_ns() < oldest_ns)
        {
            self.records.pop_lru();
        }
        self.windows.forget_before(oldest_ns);
    }

    /// The latest story of the connection between two ends, whichever is named first. Several on
    /// loopback addresses of different network namespaces: the one with the latest event.
    #[must_use]
    pub fn of(&self, one: SocketAddr, other: SocketAddr) -> Option<Story> {
        self.records
            .iter()
            .filter(|(key, _)| key.is_between(one, other))
            .max_by_key(|(_, record)| record.touched_ns())
            .map(|(key, record)| words::story(key, record, &self.windows))
    }

    /// The latest story of the connection that goes from a port of network namespace `netns` to
    /// `remote`.
    #[must_use]
    pub fn of_port(&self, netns: u32, port: u16, remote: SocketAddr) -> Option<Story> {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        self.records
            .iter()
            .filter(|(key, record)| {
                let side = key.side_of_port(port, remote);
                side.is_some_and(|side| record.side(side).netns == netns)
            })
            .max_by_key(|(_, record)| record.touched_ns())
            .map(|(key, record)| words::story(key, record, &self.windows))
    }

    /// The `most` stories in which there is most to be explained, the worst first; among equals the
    /// latest.
    #[must_use]
    pub fn notable(&self, most: usize) -> Vec<Story> {
        self.matching(most, |_| true)
    }

    /// As [`Stories::notable`], of those for which `wanted` says so.
    #[must_use]
    pub fn matching(&self, most: usize, wanted: impl Fn(&Story) -> bool) -> Vec<Story> {
        let mut all: Vec<Story> = self
            .records
            .iter()
            .map(|(key, record)| words::story(key, record, &self.windows))
            .filter(wanted)
            .collect();
        all.sort_by_cached_key(|story| std::cmp::Reverse((story.weight(), story.until_ns)));
        all.truncate(most);
        all
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many had to make room for others.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests;
