//! How many of something happened in each bin of 100 ms, by label set.
//!
//! Every bin is one observation, empty ones included: a burst shows in the histogram whatever the
//! scrape interval, and its size and time in the peak of the last full minute. Bins are those of
//! the kernel's clock (`netobs_common::burst`), so that an agent that was kept from running finds
//! the same afterwards.

use std::{
    collections::{BTreeMap, HashSet},
    hash::Hash,
};

use super::{histogram::Histogram, series::Series};

/// Upper bounds of the number in a bin: none, one, and by tens.
pub const BURST_BOUNDS: [f64; 6] = [0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0];
/// Nanoseconds of a wall-clock minute.
const MINUTE_NS: u64 = 60_000_000_000;
/// Bins that may wait for their time in one label set: more than an hour of them.
const MOST_PENDING: usize = 40_000;

/// The largest bin of a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// How many happened in it.
    pub count: u64,
    /// When it began, in wall-clock ns; 0 when there was none.
    pub wall_ns: u64,
}

/// What one label set holds.
#[derive(Debug)]
pub struct BurstValues {
    /// Number of things by bin.
    pub histogram: Histogram<{ BURST_BOUNDS.len() }>,
    /// Largest bin of the last full wall-clock minute.
    pub peak: Peak,
    peak_now: Peak,
    minute: u64,
    /// Counts of bins that are not observed yet.
    pending: BTreeMap<u32, u64>,
    /// The first bin that is not observed yet.
    next: Option<u32>,
}

impl Default for BurstValues {
    fn default() -> Self {
        Self {
            histogram: Histogram::new(&BURST_BOUNDS),
            peak: Peak::default(),
            peak_now: Peak::default(),
            minute: 0,
            pending: BTreeMap::new(),
            next: None,
        }
    }
}

impl BurstValues {
    /// Adds to a bin; to the first that is still open when it has been observed already.
    fn count(&mut self, bin: u32, more: u64) {
        let next = *self.next.get_or_insert(bin);
        let bin = match self.pending.last_key_value() {
            // A stream of bins that never ends would be a fault; nothing is lost by it.
            Some((last, _)) if self.pending.len() >= MOST_PENDING => *last,
            _ => bin.max(next),
        };
        *self.pending.entry(bin).or_default() += more;
    }

    fn close(&mut self, until: u32, wall_ns: &dyn Fn(u32) -> Option<u64>) {
        let mut next = *self.next.get_or_insert(until);
        while let Some(entry) = self.pending.first_entry() {
            let bin = *entry.key();
            if bin >= until {
                break;
            }
            let count = entry.remove();
            self.histogram.observe_zeros(u64::from(bin - next));
            #[allow(clippy::cast_precision_loss, reason = "below 2^53 for sure")]
            self.histogram.observe(count as f64);
            next = bin + 1;
            if let Some(began) = wall_ns(bin) {
                self.begin_minute(began / MINUTE_NS);
                if count > self.peak_now.count {
                    self.peak_now = Peak {
                        count,
                        wall_ns: began,
                    };
                }
            }
        }
        if next < until {
            self.histogram.observe_zeros(u64::from(until - next));
            next = until;
        }
        self.next = Some(next);
        if let Some(now) = wall_ns(until) {
            self.begin_minute(now / MINUTE_NS);
        }
    }

    fn begin_minute(&mut self, minute: u64) {
        if minute == self.minute {
            return;
        }
        self.peak = if minute == self.minute + 1 {
            self.peak_now
        } else {
            Peak::default()
        };
        self.peak_now = Peak::default();
        self.minute = minute;
    }
}

/// Bins by label set.
#[derive(Debug)]
pub struct BurstBook<L> {
    series: Series<L, BurstValues>,
    /// Label sets that did not fit, so that each is counted once.
    folded: HashSet<L>,
}

impl<L: Eq + Hash + Clone> BurstBook<L> {
    /// An empty one with at most `most` label sets.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            series: Series::new(most),
            folded: HashSet::new(),
        }
    }

    /// Begins to observe a label set, if it is new, with the bin `from`.
    pub fn begin(&mut self, labels: &L, from: u32) {
        if self.series.has(labels) || self.folded.contains(labels) {
            return;
        }
        let admitted = self.series.admit(labels);
        if admitted.is_none() {
            self.folded.insert(labels.clone());
        }
        let values = self.series.value(admitted.as_ref());
        values.next.get_or_insert(from);
    }

    /// Counts `more` in a bin of a label set; `None` is the one of those that do not fit.
    pub fn count(&mut self, labels: Option<&L>, bin: u32, more: u64) {
        let known = labels.filter(|labels| self.series.has(labels)).cloned();
        self.series.value(known.as_ref()).count(bin, more);
    }

    /// Observes every bin before `until`. `wall_ns` tells when a bin began.
    pub fn close(&mut self, until: u32, wall_ns: &dyn Fn(u32) -> Option<u64>) {
        for values in self.series.values_mut() {
            values.close(until, wall_ns);
        }
    }

    /// Forgets label sets.
    pub fn retain(&mut self, mut keep: impl FnMut(&L) -> bool) {
        self.series.retain(|labels, _| keep(labels));
        self.folded.retain(|labels| keep(labels));
    }

    /// The series.
    #[must_use]
    pub fn series(&self) -> &Series<L, BurstValues> {
        &self.series
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bin 0 begins with a wall-clock minute.
    fn wall(bin: u32) -> Option<u64> {
        Some(1_000 * MINUTE_NS + u64::from(bin) * 100_000_000)
    }

    fn counts(values: &BurstValues) -> Vec<u64> {
        values.histogram.buckets().map(|(_, count)| count).collect()
    }

    fn only(book: &BurstBook<u8>) -> &BurstValues {
        book.series().iter().next().unwrap().1
    }

    #[test]
    fn every_bin_is_observed_once() {
        let mut book = BurstBook::new(9);
        book.begin(&1, 100);
        book.count(Some(&1), 103, 7);
        book.count(Some(&1), 103, 5);
        book.count(Some(&1), 104, 1);
        book.close(104, &wall);
        assert_eq!(counts(only(&book)), [3, 0, 0, 1, 0, 0, 0]);
        book.close(110, &wall);
        book.close(110, &wall);
        assert_eq!(counts(only(&book)), [8, 1, 0, 1, 0, 0, 0]);
        assert_eq!(only(&book).histogram.count(), 10);
        assert_eq!(only(&book).histogram.sum(), 13.0);
    }

    #[test]
    fn what_comes_late_is_not_lost() {
        let mut book = BurstBook::new(9);
        book.begin(&1, 100);
        book.close(200, &wall);
        book.count(Some(&1), 150, 30);
        book.close(210, &wall);
        assert_eq!(counts(only(&book)), [109, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn the_peak_is_that_of_the_last_full_minute() {
        let mut book = BurstBook::new(9);
        book.begin(&1, 0);
        for (bin, count) in [(10, 4), (20, 9), (21, 9), (30, 8)] {
            book.count(Some(&1), bin, count);
        }
        book.close(599, &wall);
        assert_eq!(only(&book).peak, Peak::default());
        book.close(600, &wall);
        let peak = Peak {
            count: 9,
            wall_ns: wall(20).unwrap(),
        };
        assert_eq!(only(&book).peak, peak);
        book.close(1_199, &wall);
        assert_eq!(only(&book).peak, peak);
        book.close(1_200, &wall);
        assert_eq!(only(&book).peak, Peak::default());
    }

    /// An agent that did not run for two minutes.
    #[test]
    fn a_long_pause_changes_nothing() {
        let mut book = BurstBook::new(9);
        book.begin(&1, 0);
        book.count(Some(&1), 650, 40);
        book.close(1_250, &wall);
        assert_eq!(only(&book).peak.count, 40);
        assert_eq!(counts(only(&book)), [1_249, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn label_sets_are_bounded() {
        let mut book = BurstBook::new(1);
        book.begin(&1, 0);
        book.begin(&2, 0);
        book.count(Some(&2), 0, 3);
        book.count(None, 1, 4);
        book.close(10, &wall);
        let folded = book.series().iter().find(|(labels, _)| labels.is_none());
        assert_eq!(folded.unwrap().1.histogram.sum(), 7.0);
    }
}
