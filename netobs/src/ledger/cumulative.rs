//! Counts that the kernel side keeps by key and that only grow, made into bounded series.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::{Duration, Instant},
};

use super::series::Series;

/// What has been taken over of one key.
#[derive(Debug)]
struct Seen<C, L> {
    counts: C,
    /// Where it goes; `None` when it was folded.
    labels: Option<L>,
    changed: Instant,
}

/// A book of counts: `K` is the kernel side's key and `C` what it counts, `L` are labels and `V` is
/// what a label set holds.
#[derive(Debug)]
pub struct Cumulative<K, C, L, V> {
    seen: HashMap<K, Seen<C, L>>,
    series: Series<L, V>,
}

impl<K, C, L, V> Cumulative<K, C, L, V>
where
    K: Copy + Eq + Hash,
    C: Copy + Default + PartialEq,
    L: Copy + Eq + Hash,
    V: Default,
{
    /// An empty one with at most `most` label sets.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            seen: HashMap::new(),
            series: Series::new(most),
        }
    }

    /// From now on at most `most` label sets.
    pub fn limit(&mut self, most: usize) {
        self.series.limit(most);
    }

    /// Takes in the kernel side's counts. `labels` says where a key belongs (`None`: it is not
    /// valid) and is asked once per key; `add` adds what a key has grown by.
    pub fn take(
        &mut self,
        counts: &[(K, C)],
        mut labels: impl FnMut(&K) -> Option<L>,
        mut add: impl FnMut(&mut V, &K, Growth<'_, C>),
    ) {
        let at = Instant::now();
        for (key, now) in counts {
            let seen = match self.seen.get_mut(key) {
                Some(seen) => seen,
                None => {
                    let Some(labels) = labels(key) else { continue };
                    let labels = self.series.admit(&labels);
                    self.seen.entry(*key).or_insert(Seen {
                        counts: C::default(),
                        labels,
                        changed: at,
                    })
                }
            };
            if seen.counts == *now {
                continue;
            }
            let before = std::mem::replace(&mut seen.counts, *now);
            seen.changed = at;
            let growth = Growth {
                before: &before,
                now,
            };
            add(self.series.value(seen.labels.as_ref()), key, growth);
        }
    }

    /// Forgets the keys for which `gone` says so and those that have not changed for `idle`, with
    /// the label sets that no other key has. Returns them, to be deleted on the kernel side.
    pub fn forget(&mut self, idle: Duration, gone: impl Fn(&K) -> bool) -> Vec<K> {
        let mut keys = Vec::new();
        self.seen.retain(|key, seen| {
            let keep = !gone(key) && seen.changed.elapsed() < idle;
            if !keep {
                keys.push(*key);
            }
            keep
        });
        if !keys.is_empty() {
            let used: HashSet<L> = self.seen.values().filter_map(|seen| seen.labels).collect();
            self.series.retain(|labels, _| used.contains(labels));
        }
        keys
    }

    /// The series.
    #[must_use]
    pub fn series(&self) -> &Series<L, V> {
        &self.series
    }
}

/// How a key's counts have changed.
#[derive(Clone, Copy)]
pub struct Growth<'a, C> {
    /// At the last look.
    pub before: &'a C,
    /// Now.
    pub now: &'a C,
}

impl<C> Growth<'_, C> {
    /// What one counter has grown by; nothing when the kernel side began anew.
    pub fn of(&self, counter: impl Fn(&C) -> u64) -> u64 {
        counter(self.now).saturating_sub(counter(self.before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(book: &Cumulative<u32, u64, u32, u64>) -> Vec<(Option<u32>, u64)> {
        let mut all: Vec<_> = book
            .series()
            .iter()
            .map(|(labels, value)| (labels.copied(), *value))
            .collect();
        all.sort_unstable();
        all
    }

    fn take(book: &mut Cumulative<u32, u64, u32, u64>, counts: &[(u32, u64)]) {
        book.take(
            counts,
            |key| (*key < 100).then_some(key / 10),
            |value, _, growth| *value += growth.of(|counter| *counter),
        );
    }

    #[test]
    fn growth_is_added_once_and_folding_keeps_the_sum() {
        let mut book = Cumulative::new(2);
        take(&mut book, &[(1, 5), (2, 1), (11, 2), (21, 4), (100, 9)]);
        take(&mut book, &[(1, 7), (2, 1), (11, 2), (21, 5), (100, 9)]);
        assert_eq!(sums(&book), [(None, 5), (Some(0), 8), (Some(1), 2)]);
        assert_eq!(book.series().folded(), 1);
    }

    #[test]
    fn what_is_gone_or_idle_leaves_nothing_that_others_do_not_share() {
        let mut book = Cumulative::new(9);
        take(&mut book, &[(1, 5), (2, 1), (11, 2)]);
        let hour = Duration::from_secs(3600);
        assert_eq!(book.forget(hour, |key| *key == 1), [1]);
        assert_eq!(sums(&book), [(Some(0), 6), (Some(1), 2)]);
        assert_eq!(book.forget(Duration::ZERO, |_| false).len(), 2);
        assert!(sums(&book).is_empty());
        // A key that comes back begins anew.
        take(&mut book, &[(1, 1)]);
        assert_eq!(sums(&book), [(Some(0), 1)]);
    }
}
