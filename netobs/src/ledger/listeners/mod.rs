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

mod by_identity;
mod in_kernel;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

pub use netobs_common::ledger::{CookieOutcome, Reason, Stage};
use netobs_common::ledger::{
    FILL_BOUNDS_PERCENT, ListenCounts, Listener, ListenerReading, QueueFills, SocketReading,
};

pub use self::by_identity::KernelListenCounters;
use super::{histogram::Histogram, namespace::Namespace, owner::Owner, series::Series};

mod limit;

pub use limit::Binding;

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

/// Upper bounds of the fill ratio, those of [`FILL_BOUNDS_PERCENT`].
pub const FILL_BOUNDS: [f64; FILL_BOUNDS_PERCENT.len()] = [0.0, 0.25, 0.5, 0.75, 0.9, 1.0];

/// What one label set holds: the sum over its sockets (several with SO_REUSEPORT).
#[derive(Debug)]
pub struct ListenerValues {
    /// Listen drops by stage and reason, overflows by stage.
    pub counts: ListenCounts,
    /// SYN cookies by outcome, where they are seen.
    pub cookies: [u64; CookieOutcome::ALL.len()],
    /// Connections put into the accept queue, where that is seen.
    pub enqueued: u64,
    /// Connections taken by `accept()`, where that is seen.
    pub accepted: u64,
    /// Accept queue length over limit, after each connection that was seen to enter, or at each look.
    pub fill: Histogram<{ FILL_BOUNDS.len() }>,
    /// Connections that wait for `accept()`.
    pub queue_length: u64,
    /// The limit in force: the lesser of the `listen()` argument and `somaxconn`.
    pub queue_limit: u64,
    /// Sockets that listen now, by what sets their limit.
    pub bindings: [u64; Binding::ALL.len()],
    /// Requests in the SYN queue.
    pub syn_queue: u64,
    /// Longest accept queue in the last full wall-clock minute.
    pub peak: u64,
    peak_now: u64,
    minute: u64,
    /// At the last look, several sockets listened: whose queue a connection enters is not known
    /// everywhere.
    shared: bool,
    /// Sockets that listen now.
    pub sockets: u64,
}

impl Default for ListenerValues {
    fn default() -> Self {
        Self {
            counts: ListenCounts::default(),
            cookies: [0; CookieOutcome::ALL.len()],
            enqueued: 0,
            accepted: 0,
            fill: Histogram::new(&FILL_BOUNDS),
            queue_length: 0,
            queue_limit: 0,
            bindings: [0; Binding::ALL.len()],
            syn_queue: 0,
            peak: 0,
            peak_now: 0,
            minute: 0,
            shared: false,
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
    namespace: Namespace,
    latest: ListenerReading,
    /// What is in the series already, of what the kernel side counted.
    counted: ListenCounts,
    cookies: [u64; CookieOutcome::ALL.len()],
    fills: QueueFills,
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
    sums: BTreeMap<Namespace, ListenSums>,
    look: u64,
    /// The kernel side sees connections enter queues.
    sees_enqueues: bool,
    /// Some queue's fill is known by looking at it only, so that each look is a sample.
    samples_looks: bool,
}

impl ListenerBook {
    /// From now on at most `most` label sets.
    pub fn limit(&mut self, most: usize) {
        self.series.limit(most);
    }

    /// An empty one with at most `most` label sets.
    #[must_use]
    pub fn new(most: usize, counting: Counting) -> Self {
        Self {
            counting,
            tracked: HashMap::new(),
            series: Series::new(most),
            sums: BTreeMap::new(),
            look: 0,
            sees_enqueues: false,
            samples_looks: false,
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
            values.shared = values.sockets > 1;
            (values.queue_length, values.queue_limit) = (0, 0);
            (values.syn_queue, values.sockets) = (0, 0);
            values.bindings = [0; Binding::ALL.len()];
        }
        let mut rose = false;
        self.samples_looks = false;
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
            let sums = self.sums.entry(tracked.namespace).or_default();
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
            values.bindings[limit::binding(reading) as usize] += 1;
            self.sees_enqueues |= reading.listener.enqueued > 0;
            if values.shared && !self.sees_enqueues {
                let ratio = f64::from(length) / f64::from(limit.max(1));
                values.fill.observe(ratio);
                self.samples_looks = true;
            }
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
                    namespace: (&reading.listener).into(),
                    latest: unread(reading),
                    counted: ListenCounts::default(),
                    cookies: [0; CookieOutcome::ALL.len()],
                    fills: QueueFills::default(),
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
                let sums = self.sums.entry(tracked.namespace).or_default();
                tracked.publish_counted(self.counting, values, sums);
                tracked.look = 0; // let go once settled
            }
        }
        self.tracked
            .retain(|_, tracked| tracked.look != 0 || tracked.pending() > 0);
    }

    /// Whether a further look that finds the same as the last one still adds to the book.
    #[must_use]
    pub fn samples_looks(&self) -> bool {
        self.samples_looks
    }

    /// Starts the count of these namespaces now: what was dropped before is not attributed.
    pub fn baseline(&mut self, namespaces: &HashSet<u32>) {
        for tracked in self.tracked.values_mut() {
            if namespaces.contains(&tracked.namespace.number) {
                tracked.counted = tracked.latest.listener.counts;
                tracked.confirmed = drops(&tracked.latest);
                tracked.published = tracked.confirmed;
                tracked.acks_published = tracked.latest.listener.ack_drops;
                tracked.cookies_published = tracked.latest.listener.cookie_discards;
            }
        }
        self.sums
            .retain(|namespace, _| !namespaces.contains(&namespace.number));
    }

    /// Begins the sums of a namespace at zero, whose number was that of another before and whose
    /// identity cannot be told. The series go on: counters do not fall.
    pub fn restart(&mut self, number: u32) {
        self.sums.remove(&Namespace {
            number,
            identity: 0,
        });
    }

    /// Forgets a namespace whose number another has now: what that one has is its own.
    pub fn end(&mut self, namespace: Namespace) {
        self.tracked
            .retain(|_, tracked| tracked.namespace != namespace);
        self.series.retain(|labels, _| {
            (labels.owner.netns, labels.owner.identity) != (namespace.number, namespace.identity)
        });
        self.sums.remove(&namespace);
    }

    /// Every listening socket: the address of its `struct sock`, and the label set that it belongs
    /// to (`None`: one that was folded).
    pub fn socket_labels(&self) -> impl Iterator<Item = (u64, Option<&ListenerLabels>)> {
        let tracked = self.tracked.iter();
        tracked.map(|((sk, _), tracked)| (*sk, tracked.labels.as_ref()))
    }

    /// How listen drops are told.
    #[must_use]
    pub fn counting(&self) -> Counting {
        self.counting
    }

    /// What has been attributed since the baseline to the namespace that has this number.
    #[must_use]
    pub fn sums(&self, number: u32) -> ListenSums {
        self.sums
            .range(Namespace::all(number))
            .fold(ListenSums::default(), |all, (_, sums)| ListenSums {
                drops: all.drops + sums.drops,
                overflows: all.overflows + sums.overflows,
                abandoned: all.abandoned + sums.abandoned,
                syn_queue_full: all.syn_queue_full + sums.syn_queue_full,
            })
    }

    /// Forgets series without sockets for which `gone` says so, and sums of dead namespaces.
    pub fn forget(&mut self, dead: &HashSet<u32>, mut gone: impl FnMut(&ListenerLabels) -> bool) {
        self.series
            .retain(|labels, values| values.sockets > 0 || !gone(labels));
        self.sums
            .retain(|namespace, _| !dead.contains(&namespace.number));
    }

    /// What the sockets that listen asked `listen()` for, by the inode of their file; those of which
    /// it is not known are left out.
    #[must_use]
    pub fn asked(&self) -> HashMap<u64, u32> {
        let readings = self.tracked.values().map(|tracked| &tracked.latest);
        readings
            .filter(|reading| reading.listener.inode != 0)
            .filter_map(|reading| Some((reading.listener.inode, limit::asked(reading)?)))
            .collect()
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
