//! Where a listener's drops are told by the identity of `ListenerReading::listen_drops`: what was
//! confirmed is settled by the namespace's own counters, read after the listeners.

use std::collections::HashSet;

use super::{Counting, ListenerBook, ListenerValues, Namespace, Reason, Stage, Tracked};

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

impl ListenerBook {
    /// Namespaces with confirmed drops that are not yet in any series.
    #[must_use]
    pub fn unsettled(&self) -> HashSet<Namespace> {
        let pending = self
            .tracked
            .values()
            .filter(|tracked| tracked.pending() > 0);
        pending.map(|tracked| tracked.namespace).collect()
    }

    /// Publishes the confirmed drops of a namespace, by what its own counters, read after the last
    /// look, say of their causes. `None` when they cannot be read for good (it may be gone).
    pub fn settle(&mut self, namespace: Namespace, kernel: Option<KernelListenCounters>) {
        let sums = self.sums.entry(namespace).or_default();
        let mut pending: Vec<&mut Tracked> = self
            .tracked
            .values_mut()
            .filter(|tracked| tracked.namespace == namespace && tracked.pending() > 0)
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
}

impl Tracked {
    /// Drops by identity that are not in the series yet.
    pub(super) fn pending(&self) -> u64 {
        self.confirmed.saturating_sub(self.published)
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
