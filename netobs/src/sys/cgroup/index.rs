//! Numbers of cgroups and whose they are: pure, and bounded.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::Workload;
use super::hierarchy::{CGROUP_LIMIT, Walk};

/// How long what is gone is remembered, and what was not found is not looked for again.
const LINGER: Duration = Duration::from_secs(120);
/// Numbers that are looked for at a time, and that were not found.
const WANTED_LIMIT: usize = 4096;
/// What walks find, and as much again that was learned in between.
const KNOWN_LIMIT: usize = 2 * CGROUP_LIMIT;

/// What is known of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Whose it is or was; nobody's when no walk found it.
    Known(Workload),
    /// Nothing yet.
    Unknown,
}

/// All cgroups by their number.
#[derive(Debug, Default)]
pub(super) struct Index {
    known: HashMap<u64, Workload>,
    /// Removed, but a socket can outlive its cgroup.
    gone: HashMap<u64, (Workload, Instant)>,
    /// To be looked for by the next walk.
    wanted: HashSet<u64>,
    /// Looked for by the walk under way.
    sought: HashSet<u64>,
    /// Not found, and when.
    lost: HashMap<u64, Instant>,
}

impl Index {
    pub(super) fn get(&self, number: u64, now: Instant) -> Answer {
        let recent = |since: Instant| now.saturating_duration_since(since) < LINGER;
        if let Some(workload) = self.known.get(&number) {
            return Answer::Known(*workload);
        }
        match (self.gone.get(&number), self.lost.get(&number)) {
            (Some((workload, since)), _) if recent(*since) => Answer::Known(*workload),
            (_, Some(since)) if recent(*since) => Answer::Known(Workload::default()),
            _ => Answer::Unknown,
        }
    }

    /// Cgroups that exist, as far as is known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Takes in one that was found by other means than a walk.
    pub(super) fn learn(&mut self, number: u64, workload: Workload) {
        if self.known.len() < KNOWN_LIMIT {
            self.known.insert(number, workload);
        }
    }

    /// Has a number looked for; `false` when too many are.
    pub(super) fn want(&mut self, number: u64) -> bool {
        if self.sought.contains(&number) || self.wanted.contains(&number) {
            return true;
        }
        self.wanted.len() < WANTED_LIMIT && self.wanted.insert(number)
    }

    /// A walk begins: it will have seen what was wanted until now.
    pub(super) fn walk_begins(&mut self) {
        self.sought.extend(self.wanted.drain());
    }

    /// Takes what a walk found.
    pub(super) fn take(&mut self, walk: Walk, now: Instant) {
        let recent = |since: Instant| now.saturating_duration_since(since) < LINGER;
        self.gone.retain(|_, (_, since)| recent(*since));
        self.lost.retain(|_, since| recent(*since));
        if walk.complete {
            let before = std::mem::replace(&mut self.known, walk.found);
            for (number, workload) in before {
                // Nobody's needs no memory of its own.
                if !workload.is_empty()
                    && !self.known.contains_key(&number)
                    && self.gone.len() < CGROUP_LIMIT
                {
                    self.gone.entry(number).or_insert((workload, now));
                }
            }
        } else {
            for (number, workload) in walk.found {
                self.learn(number, workload);
            }
        }
        for number in self.sought.drain() {
            if !self.known.contains_key(&number) && self.lost.len() < WANTED_LIMIT {
                self.lost.insert(number, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(digit: char) -> Workload {
        let id: String = std::iter::repeat_n(digit, 64).collect();
        Workload::from_cgroup_path(&format!("/docker/{id}"))
    }

    fn walk(found: &[(u64, Workload)], complete: bool) -> Walk {
        Walk {
            found: found.iter().copied().collect(),
            complete,
        }
    }

    #[test]
    fn what_is_gone_lingers_for_two_minutes() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut index = Index::default();
        index.take(
            walk(&[(1, Workload::default()), (7, workload('a'))], true),
            begin,
        );
        assert_eq!(index.get(7, begin), Answer::Known(workload('a')));
        index.take(walk(&[(1, Workload::default())], true), at(10));
        assert_eq!(index.len(), 1);
        assert_eq!(index.get(7, at(129)), Answer::Known(workload('a')));
        assert_eq!(index.get(7, at(130)), Answer::Unknown);
        index.take(walk(&[(1, Workload::default())], true), at(130));
        assert!(index.gone.is_empty());
    }

    #[test]
    fn a_walk_that_saw_a_part_takes_nothing_away() {
        let now = Instant::now();
        let mut index = Index::default();
        index.take(walk(&[(7, workload('a'))], true), now);
        index.take(walk(&[(8, workload('b'))], false), now);
        assert_eq!(index.get(7, now), Answer::Known(workload('a')));
        assert_eq!(index.get(8, now), Answer::Known(workload('b')));
        assert!(index.gone.is_empty());
    }

    #[test]
    fn what_was_wanted_before_a_walk_and_not_found_is_nobodys_for_a_while() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut index = Index::default();
        assert!(index.want(5));
        index.walk_begins();
        assert!(index.want(5));
        assert!(index.want(6));
        index.take(walk(&[], true), begin);
        assert_eq!(index.get(5, at(119)), Answer::Known(Workload::default()));
        assert_eq!(index.get(5, at(120)), Answer::Unknown);
        // The walk may have passed its place before it was there.
        assert_eq!(index.get(6, begin), Answer::Unknown);
        index.walk_begins();
        index.take(walk(&[(6, workload('a'))], true), begin);
        assert_eq!(index.get(6, begin), Answer::Known(workload('a')));
    }

    #[test]
    fn numbers_without_end_take_no_memory_without_end() {
        let now = Instant::now();
        let mut index = Index::default();
        for round in 0..3_u64 {
            for number in 0..10_000 {
                index.want(round * 10_000 + number);
            }
            index.walk_begins();
            index.take(walk(&[], true), now);
        }
        assert_eq!(index.lost.len(), WANTED_LIMIT);
        assert!(index.wanted.is_empty() && index.sought.is_empty());
        for number in 0..200_000 {
            index.learn(number, workload('a'));
        }
        assert_eq!(index.len(), KNOWN_LIMIT);
        index.take(walk(&[], true), now);
        assert_eq!((index.len(), index.gone.len()), (0, CGROUP_LIMIT));
    }
}
