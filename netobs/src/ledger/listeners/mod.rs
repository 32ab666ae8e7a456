//! Listen drops, overflows and queue lengths by listener, from readings.
//!
//! Where the kernel side counts each drop itself, its counts are taken over. Elsewhere a reading tells
//! a listener's drops by the identity that [`ListenerReading::listen_drops`] documents, and two things
//! make counts of it:
//!
//! * **Confirmation.** A packet that is being dropped for another reason is in `sk_drops` for a
//!   moment before it is in the discards. A rise is believed when two readings in a row have it.
//! * **Settlement.** The namespace's own counters, read after the listeners, tell how many of the
//!   confirmed drops were overflows, and how many were of a full SYN queue.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netobs_common::ledger::{ListenCounts, Listener, ListenerReading, SocketReading};
pub use netobs_common::ledger::{Reason, Stage};

use super::{histogram::Histogram, owner::Owner, series::Series};

/// Labels of the listener families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerLabels {
    /// Who listens.
    pub owner: Owner,
    /// Address that it listens on.
    pub address: IpAddr,
    /// Port that it listens on.
    pub port: u16,
}

/// Upper bounds of the fill ratio; a queue overflows when it would exceed 1 by one connection.
pub const FILL_BOUNDS: [f64; 6] = [0.0, 0.25, 0.5, 0.75, 0.9, 1.0];

/// What one label set holds: the sum over its sockets (several with SO_REUSEPORT).
#[derive(Debug)]
pub struct ListenerValues {
    /// Listen drops by stage and reason, overflows by stage.
    pub counts: ListenCounts,
    /// Connections put into the accept queue, where that is seen.
    pub enqueued: u64,
    /// Connections taken by `accept()`, where that is seen.
    pub accepted: u64,
    /// Accept queue length over limit, at each look.
    pub fill: Histogram<{ FILL_BOUNDS.len() }>,
    /// Connections that wait for `accept()`.
    pub queue_length: u64,
    /// The limit in force: the lesser of the `listen()` argument and `somaxconn`.
    pub queue_limit: u64,
    /// Requests in the SYN queue.
    pub syn_queue: u64,
    /// Longest accept queue in the last full wall-clock minute.
    pub peak: u64,
    peak_now: u64,
    minute: u64,
    /// Sockets that listen now.
    pub sockets: u64,
}

impl Default for ListenerValues {
    fn default() -> Self {
        Self {
            counts: ListenCounts::default(),
            enqueued: 0,
            accepted: 0,
            fill: Histogram::new(&FILL_BOUNDS),
            queue_length: 0,
            queue_limit: 0,
            syn_queue: 0,
            peak: 0,
            peak_now: 0,
            minute: 0,
            sockets: 0,
        }
    }
}

impl ListenerValues {
    fn raise_peak(&mut self, length: u64, minute: u64) {
        if minute != self.minute {
            // A minute without a look in between leaves nothing to report.
            self.peak = if minute == self.minute + 1 {
                self.peak_now
            } else {
                0
            };
            self.peak_now = 0;
            self.minute = minute;
        }
        self.peak_now = self.peak_now.max(length);
    }
}

/// A listening socket: address of its `struct sock`, and when it was first seen.
type Socket = (u64, u64);

/// How readings tell listen drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// The kernel side counts each drop with its stage and reason.
    InKernel,
    /// By the identity that [`ListenerReading::listen_drops`] documents.
    ByIdentity {
        /// Whether dropped final ACKs have a drop reason of their own, or pass for SYNs.
        stages: bool,
    },
    /// By the same, which without `kfree_skb` is an upper bound: no more is attributed than the
    /// namespace's counter allows.
    Bounded,
}

/// What is known of one listening socket.
#[derive(Debug)]
struct Tracked {
    labels: Option<ListenerLabels>,
    netns: u32,
    latest: ListenerReading,
    /// What is in the series already, of what the kernel side counted.
    counted: ListenCounts,
    enqueued: u64,
    accepted: u64,
    /// Drops by identity: believed, and in the series already.
    confirmed: u64,
    published: u64,
    acks_published: u64,
    cookies_published: u64,
    /// The look in which it was last there.
    look: u64,
}

impl Tracked {
    /// Drops by identity that are not in the series yet.
    fn pending(&self) -> u64 {
        self.confirmed.saturating_sub(self.published)
    }
}

/// The kernel's own counters of one namespace since its baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelListenCounters {
    /// TcpExt ListenDrops.
    pub drops: u64,
    /// TcpExt ListenOverflows.
    pub overflows: u64,
    /// TcpExt TCPReqQFullDrop.
    pub syn_queue_full: u64,
}

/// What has been attributed in one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenSums {
    /// To hold against ListenDrops.
    pub drops: u64,
    /// To hold against ListenOverflows.
    pub overflows: u64,
    /// Overflows of which it could not be told whose they were.
    abandoned: u64,
    /// Drops taken to be of a full SYN queue.
    syn_queue_full: u64,
}

/// Finds who holds listening sockets.
pub trait Owners {
    /// One per listener, in order.
    fn of(&mut self, listeners: &[Listener]) -> Vec<Owner>;
}

/// The book of listeners.
#[derive(Debug)]
pub struct ListenerBook {
    counting: Counting,
    tracked: HashMap<Socket, Tracked>,
    series: Series<ListenerLabels, ListenerValues>,
    sums: HashMap<u32, ListenSums>,
    look: u64,
}

impl ListenerBook {
    /// An empty one with at most `most` label sets.
    #[must_use]
    pub fn new(most: usize, counting: Counting) -> Self {
        Self {
            counting,
            tracked: HashMap::new(),
            series: Series::new(most),
            sums: HashMap::new(),
            look: 0,
        }
    }

    /// Takes in one reading of every listener. `minute` is the wall-clock minute.
    ///
    /// Returns whether some listener's drops rose: a second look then confirms them at once.
    pub fn observe(
        &mut self,
        readings: &[ListenerReading],
        minute: u64,
        owners: &mut dyn Owners,
    ) -> bool {
        self.look += 1;
        self.admit_new(readings, owners);
        for values in self.series.values_mut() {
            (values.queue_length, values.queue_limit) = (0, 0);
            (values.syn_queue, values.sockets) = (0, 0);
        }
        let mut rose = false;
        for reading in readings {
            let Some(tracked) = self.tracked.get_mut(&socket(reading)) else {
                continue;
            };
            tracked.look = self.look;
            let before = drops(&tracked.latest);
            let now = drops(reading);
            tracked.confirmed = tracked.confirmed.max(before.min(now));
            rose |= self.counting != Counting::InKernel && now > tracked.confirmed;
            tracked.latest = *reading;

            let values = self.series.value(tracked.labels.as_ref());
            let sums = self.sums.entry(tracked.netns).or_default();
            tracked.publish_counted(self.counting, values, sums);
            let SocketReading {
                ack_backlog: length,
                max_ack_backlog: limit,
                ..
            } = reading.socket;
            values.queue_length += u64::from(length);
            values.queue_limit += u64::from(limit);
            values.syn_queue += u64::from(reading.socket.syn_queue);
            values.sockets += 1;
            values
                .fill
                .observe(f64::from(length) / f64::from(limit.max(1)));
            values.raise_peak(reading.listener.peak.into(), minute);
        }
        for values in self.series.values_mut() {
            values.raise_peak(values.queue_length, minute);
        }
        // A listener that is in no look any more and left no final reading (the queue of those was
        // full, which is counted): what was confirmed is what is known.
        let last = self.look;
        self.tracked
            .retain(|_, tracked| tracked.look + 2 >= last || tracked.pending() > 0);
        rose
    }

    fn admit_new(&mut self, readings: &[ListenerReading], owners: &mut dyn Owners) {
        let new: Vec<&ListenerReading> = readings
            .iter()
            .filter(|reading| !self.tracked.contains_key(&socket(reading)))
            .collect();
        if new.is_empty() {
            return;
        }
        let listeners: Vec<Listener> = new.iter().map(|reading| reading.listener).collect();
        let mut owners = owners.of(&listeners).into_iter();
        for reading in new {
            let labels = labels(&reading.listener, owners.next().unwrap_or_default());
            let admitted = self.series.admit(&labels);
            self.tracked.insert(
                socket(reading),
                Tracked {
                    labels: admitted,
                    netns: reading.listener.owner.netns,
                    latest: unread(reading),
                    counted: ListenCounts::default(),
                    enqueued: 0,
                    accepted: 0,
                    confirmed: 0,
                    published: 0,
                    acks_published: 0,
                    cookies_published: 0,
                    look: self.look,
                },
            );
        }
    }

    /// Takes in the final readings of listeners that have gone.
    pub fn close(&mut self, readings: &[ListenerReading], owners: &mut dyn Owners) {
        self.admit_new(readings, owners);
        for reading in readings {
            if let Some(tracked) = self.tracked.get_mut(&socket(reading)) {
                // Nothing is in flight any more: the socket is being destroyed.
                tracked.confirmed = tracked.confirmed.max(drops(reading));
                tracked.latest = *reading;
                let values = self.series.value(tracked.labels.as_ref());
                let sums = self.sums.entry(tracked.netns).or_default();
                tracked.publish_counted(self.counting, values, sums);
                tracked.look = 0; // let go once settled
            }
        }
        self.tracked
            .retain(|_, tracked| tracked.look != 0 || tracked.pending() > 0);
    }

    /// Starts the count of these namespaces now: what was dropped before is not attributed.
    pub fn baseline(&mut self, namespaces: &HashSet<u32>) {
        for tracked in self.tracked.values_mut() {
            if namespaces.contains(&tracked.netns) {
                tracked.counted = tracked.latest.listener.counts;
                tracked.confirmed = drops(&tracked.latest);
                tracked.published = tracked.confirmed;
                tracked.acks_published = tracked.latest.listener.ack_drops;
                tracked.cookies_published = tracked.latest.listener.cookie_discards;
            }
        }
        for netns in namespaces {
            self.sums.remove(netns);
        }
    }

    /// Begins the sums of a namespace at zero, whose number was that of another before. The series
    /// go on: counters do not fall.
    pub fn restart(&mut self, netns: u32) {
        self.sums.remove(&netns);
    }

    /// Namespaces with confirmed drops that are not yet in any series.
    #[must_use]
    pub fn unsettled(&self) -> HashSet<u32> {
        let pending = self
            .tracked
            .values()
            .filter(|tracked| tracked.pending() > 0);
        pending.map(|tracked| tracked.netns).collect()
    }

    /// Publishes the confirmed drops of a namespace, by what its own counters, read after the last
    /// look, say of their causes. `None` when they cannot be read (the namespace may be gone).
    pub fn settle(&mut self, netns: u32, kernel: Option<KernelListenCounters>) {
        let sums = self.sums.entry(netns).or_default();
        let mut pending: Vec<&mut Tracked> = self
            .tracked
            .values_mut()
            .filter(|tracked| tracked.netns == netns && tracked.pending() > 0)
            .collect();
        let total: u64 = pending.iter().map(|tracked| tracked.pending()).sum();

        // How many of `total` the namespace's counters allow for. Each listener's share is what
        // must be its own even if all the others' drops had another cause: exact when one listener
        // dropped or all had the same cause, a lower bound otherwise.
        let drops_left = if matches!(self.counting, Counting::ByIdentity { .. }) {
            total
        } else {
            kernel
                .map_or(0, |kernel| kernel.drops.saturating_sub(sums.drops))
                .min(total)
        };
        let overflows_left = kernel.map_or(0, |kernel| {
            kernel
                .overflows
                .saturating_sub(sums.overflows + sums.abandoned)
                .min(drops_left)
        });
        let syn_queue_left = kernel.map_or(0, |kernel| {
            kernel
                .syn_queue_full
                .saturating_sub(sums.syn_queue_full)
                .min(total - overflows_left)
        });
        let mut overflows_given = 0;
        for tracked in &mut pending {
            let values = self.series.value(tracked.labels.as_ref());
            let own = tracked.pending();
            let dropped = own.saturating_sub(total - drops_left);
            let overflowed = own.saturating_sub(total - overflows_left).min(dropped);
            let syn_queue_full = own
                .saturating_sub(total - syn_queue_left)
                .min(dropped - overflowed);
            let stages = self.counting == Counting::ByIdentity { stages: true };
            tracked.publish(values, stages, dropped, overflowed, syn_queue_full);
            sums.drops += dropped;
            sums.overflows += overflowed;
            sums.syn_queue_full += syn_queue_full;
            overflows_given += overflowed;
        }
        sums.abandoned += overflows_left.saturating_sub(overflows_given);
        self.tracked
            .retain(|_, tracked| tracked.look != 0 || tracked.pending() > 0);
    }

    /// What has been attributed in a namespace since its baseline.
    #[must_use]
    pub fn sums(&self, netns: u32) -> ListenSums {
        self.sums.get(&netns).copied().unwrap_or_default()
    }

    /// Forgets series without sockets for which `gone` says so, and sums of dead namespaces.
    pub fn forget(&mut self, dead: &HashSet<u32>, mut gone: impl FnMut(&ListenerLabels) -> bool) {
        self.series
            .retain(|labels, values| values.sockets > 0 || !gone(labels));
        self.sums.retain(|netns, _| !dead.contains(netns));
    }

    /// The series.
    #[must_use]
    pub fn series(&self) -> &Series<ListenerLabels, ListenerValues> {
        &self.series
    }

    /// Whether listeners count what `accept()` takes.
    #[must_use]
    pub fn counts_accepts(&self) -> bool {
        self.series.iter().any(|(_, values)| values.accepted > 0)
    }

    /// How many listening sockets are followed.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.tracked.len()
    }
}

impl Tracked {
    /// Moves what the kernel side has counted since the last time into the series.
    fn publish_counted(
        &mut self,
        counting: Counting,
        values: &mut ListenerValues,
        sums: &mut ListenSums,
    ) {
        let listener = &self.latest.listener;
        values.enqueued += listener.enqueued.saturating_sub(self.enqueued);
        values.accepted += listener.accepted.saturating_sub(self.accepted);
        (self.enqueued, self.accepted) = (listener.enqueued, listener.accepted);
        if counting != Counting::InKernel {
            return;
        }
        let now = listener.counts;
        for stage in 0..Stage::ALL.len() {
            for reason in 0..Reason::ALL.len() {
                let more =
                    now.drops[stage][reason].saturating_sub(self.counted.drops[stage][reason]);
                values.counts.drops[stage][reason] += more;
                sums.drops += more;
            }
            let more = now.overflows[stage].saturating_sub(self.counted.overflows[stage]);
            values.counts.overflows[stage] += more;
            sums.overflows += more;
        }
        self.counted = now;
        self.confirmed = self.published; // what `sk_drops` says is of no interest
    }

    /// Moves pending drops into the series, split by stage: final ACKs have events of their own,
    /// the rest are SYNs, except that a discard in the SYN cookie check may be either.
    fn publish(
        &mut self,
        values: &mut ListenerValues,
        stages: bool,
        dropped: u64,
        overflowed: u64,
        syn_queue_full: u64,
    ) {
        let listener = &self.latest.listener;
        let acks = listener
            .ack_drops
            .saturating_sub(self.acks_published)
            .min(dropped);
        let rest = dropped - acks;
        let cookies = listener
            .cookie_discards
            .saturating_sub(self.cookies_published)
            .min(rest);
        let (cookies, syns) = if stages {
            (cookies, rest - cookies)
        } else {
            (rest, 0)
        };
        self.published = self.confirmed;
        self.acks_published += acks;
        self.cookies_published += listener
            .cookie_discards
            .saturating_sub(self.cookies_published)
            .min(cookies);

        // A final ACK fails because the accept queue is full, hardly ever for another reason; a
        // full SYN queue concerns SYNs only.
        let mut overflows = overflowed;
        let mut syn_queue = syn_queue_full;
        for (stage, count) in [
            (Stage::Ack, acks),
            (Stage::Other, cookies),
            (Stage::Syn, syns),
        ] {
            let full = overflows.min(count);
            let no_room = if stage == Stage::Syn {
                syn_queue.min(count - full)
            } else {
                0
            };
            overflows -= full;
            syn_queue -= no_room;
            values.counts.overflows[stage as usize] += full;
            let by_reason = &mut values.counts.drops[stage as usize];
            by_reason[Reason::AcceptQueueFull as usize] += full;
            by_reason[Reason::SynQueueFull as usize] += no_room;
            by_reason[Reason::Other as usize] += count - full - no_room;
        }
        if overflowed > 0 && values.sockets <= 1 {
            // It was seen to overflow, so it held one more than its limit, whenever it was looked at.
            let full = u64::from(self.latest.socket.max_ack_backlog) + 1;
            values.peak_now = values.peak_now.max(full);
        }
    }
}

fn socket(reading: &ListenerReading) -> Socket {
    (reading.socket.sk, reading.listener.opened_ns)
}

/// The reading of a listener that has counted nothing yet.
fn unread(reading: &ListenerReading) -> ListenerReading {
    let mut unread = *reading;
    unread.socket.drops = reading.listener.base_drops;
    unread.listener.discards = 0;
    unread
}

fn drops(reading: &ListenerReading) -> u64 {
    u64::try_from(reading.listen_drops()).unwrap_or(0)
}

fn labels(listener: &Listener, owner: Owner) -> ListenerLabels {
    ListenerLabels {
        owner,
        address: address(listener.family, listener.local_address),
        port: listener.local_port,
    }
}

/// An address as the kernel side has it.
#[must_use]
pub fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    if i32::from(family) == libc::AF_INET {
        let [a, b, c, d, ..] = bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(bytes))
    }
}

#[cfg(test)]
mod tests;
