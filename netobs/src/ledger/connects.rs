//! Outgoing handshakes by who connects.

use netobs_common::connection::{ConnectCounts, ConnectFailure, ConnectKey, Latencies};

use super::{
    cumulative::{Cumulative, Growth},
    owner::{Owner, Workloads},
};

/// Labels of the connect families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectLabels {
    /// Who connects.
    pub owner: Owner,
    /// Remote port; 0 when ephemeral.
    pub port: u16,
}

/// What one label set holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectValues {
    /// Handshakes that began.
    pub begun: u64,
    /// Those that completed.
    pub latency: Latencies,
    /// Those that did not, by [`ConnectFailure`].
    pub failures: [u64; ConnectFailure::COUNT],
}

impl ConnectValues {
    /// Handshakes under way: SYNs that nobody has answered yet.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let failed: u64 = self.failures.iter().sum();
        self.begun
            .saturating_sub(self.latency.count().saturating_add(failed))
    }
}

/// The book of outgoing handshakes.
pub type ConnectBook = Cumulative<ConnectKey, ConnectCounts, ConnectLabels, ConnectValues>;

/// Takes in the kernel side's counts.
pub fn take(
    book: &mut ConnectBook,
    counts: &[(ConnectKey, ConnectCounts)],
    workloads: &mut dyn Workloads,
) {
    book.take(
        counts,
        |key| {
            Some(ConnectLabels {
                owner: Owner::of(&key.owner, workloads),
                port: key.port,
            })
        },
        |values, _, growth| {
            values.begun += growth.of(|counts| counts.begun);
            add_latencies(&mut values.latency, &growth, |counts| &counts.latency);
            for (index, failures) in values.failures.iter_mut().enumerate() {
                *failures += growth.of(|counts| counts.failures.get(index).copied().unwrap_or(0));
            }
        },
    );
}

/// Adds what a histogram of the kernel side has grown by.
pub(super) fn add_latencies<C>(
    sum: &mut Latencies,
    growth: &Growth<'_, C>,
    latencies: impl Fn(&C) -> &Latencies,
) {
    let (now, before) = (latencies(growth.now), latencies(growth.before));
    let pairs = now.buckets.iter().zip(before.buckets);
    for (bucket, (now, before)) in sum.buckets.iter_mut().zip(pairs) {
        *bucket += now.saturating_sub(before);
    }
    sum.sum_ns += now.sum_ns.saturating_sub(before.sum_ns);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_neither_completed_nor_failed_waits() {
        let mut counts = ConnectCounts {
            begun: 5,
            ..ConnectCounts::default()
        };
        counts.latency.buckets[3] = 2;
        counts.failures[ConnectFailure::Refused as usize] = 1;
        let mut book = ConnectBook::new(9);
        take(&mut book, &[(ConnectKey::default(), counts)], &mut ());
        let (_, values) = book.series().iter().next().unwrap();
        assert_eq!((values.waiting(), values.latency.count()), (2, 2));
    }
}
