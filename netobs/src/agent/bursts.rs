//! Bins of 100 ms: from the kernel side where it counts, from the looks where it cannot.

use std::collections::HashMap;

use netobs_common::burst::{BIN_NS, BurstKey, BurstSignal, bin_of};

use super::drops::Risen;
use crate::{
    bpf::{MapError, Maps},
    ledger::{
        bursts::BurstBook,
        listeners::{Counting, ListenerBook, ListenerLabels},
    },
    metrics,
    sys::clock::ClockPair,
};

/// Bins are taken when they have been over for so long, so that nothing is being added to them.
const REST: u32 = 5;
/// How often they are taken, in bins.
const INTERVAL: u32 = 10;
/// For how long a socket that is gone is remembered, in bins: its last counts come later.
const MEMORY: u32 = 100;

/// A listening socket.
#[derive(Debug)]
struct Socket {
    labels: Option<ListenerLabels>,
    last_bin: u32,
}

/// The bins and what it takes to fill them.
pub(super) struct BurstWatch {
    books: metrics::Bursts,
    /// Listening sockets by address: whose the kernel side's counts are.
    sockets: HashMap<u64, Socket>,
    in_kernel: bool,
    taken: Vec<(BurstKey, u64)>,
    /// When the last look was, CLOCK_MONOTONIC ns.
    last_look_ns: Option<u64>,
    last_take: u32,
}

impl BurstWatch {
    pub(super) fn new(most: usize, counting: Counting) -> Self {
        Self {
            books: metrics::Bursts {
                retransmits: BurstBook::new(most),
                drops: BurstBook::new(most),
            },
            sockets: HashMap::new(),
            in_kernel: counting == Counting::InKernel,
            taken: Vec::new(),
            last_look_ns: None,
            last_take: 0,
        }
    }

    /// Takes note of who listens, at a look at `now_ns`.
    pub(super) fn look(&mut self, listeners: &ListenerBook, now_ns: u64) {
        let now = bin_of(now_ns);
        for (sk, labels) in listeners.socket_labels() {
            match self.sockets.get_mut(&sk) {
                Some(known) if known.labels.as_ref() == labels => known.last_bin = now,
                _ => {
                    if let Some(labels) = labels {
                        self.books.drops.begin(labels, now);
                    }
                    let labels = labels.copied();
                    self.sockets.insert(
                        sk,
                        Socket {
                            labels,
                            last_bin: now,
                        },
                    );
                }
            }
        }
    }

    /// The label set of a listening socket.
    pub(super) fn labels_of(&self, sk: u64) -> Option<ListenerLabels> {
        self.sockets.get(&sk)?.labels
    }

    /// Counts drops that a look found: they lie between it and the look before, and are put into
    /// the middle.
    pub(super) fn found(&mut self, (labels, drops): Risen<'_>, now_ns: u64) {
        if self.in_kernel {
            return;
        }
        let before = self.last_look_ns.unwrap_or(now_ns).min(now_ns);
        let middle = before + (now_ns - before) / 2;
        self.books.drops.count(labels, bin_of(middle), drops);
    }

    /// The look is over.
    pub(super) fn looked(&mut self, now_ns: u64) {
        self.last_look_ns = Some(now_ns);
    }

    /// Whether it is time for [`BurstWatch::take`].
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        bin_of(now_ns).saturating_sub(self.last_take) >= INTERVAL
    }

    /// Takes the kernel side's bins that are over, and observes all of that time. `namespaces` are
    /// those that are observed.
    pub(super) fn take(
        &mut self,
        maps: &mut Maps,
        namespaces: impl IntoIterator<Item = u32>,
        now_ns: u64,
        clock: Option<ClockPair>,
    ) -> Result<(), MapError> {
        let now = bin_of(now_ns);
        self.last_take = now;
        let until = now.saturating_sub(REST);
        for netns in namespaces {
            self.books.retransmits.begin(&netns, until);
        }
        self.taken.clear();
        let read = maps.take_bursts(until, &mut self.taken);
        for (key, count) in &self.taken {
            if key.signal == BurstSignal::Retransmit as u32 {
                let netns = u32::try_from(key.subject).unwrap_or_default();
                self.books.retransmits.begin(&netns, key.bin);
                self.books.retransmits.count(Some(&netns), key.bin, *count);
            } else if let Some(socket) = self.sockets.get(&key.subject) {
                self.books
                    .drops
                    .count(socket.labels.as_ref(), key.bin, *count);
            }
        }
        let wall_ns = |bin: u32| clock?.wall_ns(u64::from(bin) * BIN_NS);
        self.books.retransmits.close(until, &wall_ns);
        self.books.drops.close(until, &wall_ns);
        self.sockets
            .retain(|_, socket| socket.last_bin.saturating_add(MEMORY) >= now);
        read
    }

    /// Forgets what is gone.
    pub(super) fn forget(&mut self, listeners: &ListenerBook, knows: impl Fn(u32) -> bool) {
        self.books.retransmits.retain(|netns| knows(*netns));
        self.books
            .drops
            .retain(|labels| listeners.series().has(labels));
    }

    /// What a scrape shows.
    pub(super) fn books(&self) -> &metrics::Bursts {
        &self.books
    }
}
