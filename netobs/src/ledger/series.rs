//! Bounded sets of labels.

use std::{collections::HashMap, hash::Hash};

/// What each label set of a family holds, with a cap: what does not fit is folded into one value
/// without labels, and counted.
#[derive(Debug)]
pub struct Series<L, V> {
    most: usize,
    kept: HashMap<L, V>,
    other: Option<V>,
    folded: u64,
}

impl<L: Eq + Hash + Clone, V: Default> Series<L, V> {
    /// At most `most` label sets.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            kept: HashMap::new(),
            other: None,
            folded: 0,
        }
    }

    /// From now on at most `most`; those beyond that are there already stay until they are forgotten.
    pub fn limit(&mut self, most: usize) {
        self.most = most;
    }

    /// Decides, once, where a newcomer with these labels belongs: `None` when it is folded.
    pub fn admit(&mut self, labels: &L) -> Option<L> {
        if self.kept.contains_key(labels) {
            return Some(labels.clone());
        }
        if self.kept.len() < self.most {
            self.kept.insert(labels.clone(), V::default());
            return Some(labels.clone());
        }
        self.folded += 1;
        self.other.get_or_insert_with(V::default);
        None
    }

    /// Whether a label set has a value of its own.
    #[must_use]
    pub fn has(&self, labels: &L) -> bool {
        self.kept.contains_key(labels)
    }

    /// The value of an admitted label set, or the one of those that were folded.
    pub fn value(&mut self, admitted: Option<&L>) -> &mut V {
        match admitted {
            Some(labels) => self.kept.entry(labels.clone()).or_default(),
            None => self.other.get_or_insert_with(V::default),
        }
    }

    /// Every label set (`None`: those that were folded) with its value.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&L>, &V)> {
        let kept = self
            .kept
            .iter()
            .map(|(labels, value)| (Some(labels), value));
        kept.chain(self.other.as_ref().map(|value| (None, value)))
    }

    /// As [`Series::iter`], in the order of the labels, those that were folded last.
    pub fn sorted(&self) -> impl Iterator<Item = (Option<&L>, &V)>
    where
        L: Ord,
    {
        let mut kept: Vec<(&L, &V)> = self.kept.iter().collect();
        kept.sort_unstable_by_key(|(labels, _)| *labels);
        let kept = kept
            .into_iter()
            .map(|(labels, value)| (Some(labels), value));
        kept.chain(self.other.as_ref().map(|value| (None, value)))
    }

    /// Every value, to change.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.kept.values_mut().chain(self.other.as_mut())
    }

    /// Forgets label sets; what was folded stays, so that its counters never fall.
    pub fn retain(&mut self, mut keep: impl FnMut(&L, &mut V) -> bool) {
        self.kept.retain(|labels, value| keep(labels, value));
    }

    /// How many newcomers were folded.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_folded_and_counted() {
        let mut series: Series<u32, u64> = Series::new(2);
        for label in [1, 2, 3, 1, 4] {
            let admitted = series.admit(&label);
            *series.value(admitted.as_ref()) += 1;
        }
        assert_eq!(series.folded(), 2);
        let mut all: Vec<_> = series
            .iter()
            .map(|(label, value)| (label.copied(), *value))
            .collect();
        all.sort_unstable();
        assert_eq!(all, [(None, 2), (Some(1), 2), (Some(2), 1)]);
    }

    #[test]
    fn a_new_limit_takes_nothing_away() {
        let mut series: Series<u32, u64> = Series::new(2);
        series.admit(&1);
        series.admit(&2);
        series.limit(1);
        assert_eq!(series.admit(&2), Some(2));
        assert_eq!(series.admit(&3), None);
        series.limit(3);
        assert_eq!(series.admit(&3), Some(3));
    }

    #[test]
    fn a_forgotten_label_set_makes_room_for_another() {
        let mut series: Series<u32, u64> = Series::new(1);
        series.admit(&1);
        series.retain(|_, _| false);
        assert_eq!(series.admit(&2), Some(2));
        assert_eq!(series.folded(), 0);
    }
}
