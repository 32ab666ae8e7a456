//! When something happened, and how densely.

use std::collections::VecDeque;

/// A burst is what falls into this long.
const BIN_NS: u64 = 100_000_000;
/// Bins that are still open: events come out of order by less than this.
const OPEN: usize = 64;

/// The first and the last time, and the worst tenth of a second.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Times {
    first_ns: u64,
    last_ns: u64,
    worst: (u64, u64),
    open: VecDeque<(u64, u64)>,
}

impl Times {
    /// Takes in what happened `times` times at this moment.
    pub(super) fn add(&mut self, at_ns: u64, times: u64) {
        if self.last_ns == 0 {
            self.first_ns = at_ns;
        }
        self.first_ns = self.first_ns.min(at_ns);
        self.last_ns = self.last_ns.max(at_ns);
        let bin = at_ns / BIN_NS;
        let known = self.open.iter_mut().rev().find(|(at, _)| *at == bin);
        let count = match known {
            Some((_, count)) => {
                *count = count.saturating_add(times);
                *count
            }
            None => {
                if self.open.len() == OPEN {
                    self.open.pop_front();
                }
                self.open.push_back((bin, times));
                times
            }
        };
        if count > self.worst.1 {
            self.worst = (bin, count);
        }
    }

    /// Adds another's: the worst of either.
    pub(super) fn merge(&mut self, other: &Self) {
        if other.last_ns == 0 {
            return;
        }
        if self.last_ns == 0 {
            *self = other.clone();
            return;
        }
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        if other.worst.1 > self.worst.1 {
            self.worst = other.worst;
        }
    }

    /// The first time, CLOCK_MONOTONIC ns.
    pub(in super::super) fn first_ns(&self) -> u64 {
        self.first_ns
    }

    /// The last time.
    pub(in super::super) fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// When the worst tenth of a second began, and how often it happened in it.
    pub(in super::super) fn worst(&self) -> (u64, u64) {
        (self.worst.0.saturating_mul(BIN_NS), self.worst.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_tenth_of_a_second_is_found_among_events_out_of_order() {
        let mut times = Times::default();
        for (at_ms, count) in [(1_000, 3), (1_240, 2), (1_090, 4), (9_000, 6), (1_250, 5)] {
            times.add(at_ms * 1_000_000, count);
        }
        assert_eq!(times.worst(), (1_000_000_000, 7));
        assert_eq!(
            (times.first_ns(), times.last_ns()),
            (1_000_000_000, 9_000_000_000)
        );
        let mut sum = Times::default();
        sum.merge(&times);
        sum.merge(&Times::default());
        assert_eq!(sum.worst(), times.worst());
    }
}
