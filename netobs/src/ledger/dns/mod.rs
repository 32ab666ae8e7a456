//! Name lookups by owner and response code.

mod question;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use netobs_common::{
    dns::{AnswerCounts, AnswerKey, DnsCounts, LATENCY_BOUNDS_NS},
    owner::OwnerKey,
};

pub use self::question::{Malformed, Question};
use super::{
    cumulative::Cumulative,
    histogram::Histogram,
    namespace::Namespace,
    owner::{Owner, Workloads},
    series::Series,
};

/// Upper bounds of the latency buckets, seconds.
pub const LATENCY_BOUNDS: [f64; LATENCY_BOUNDS_NS.len()] = bounds();

#[allow(
    clippy::cast_precision_loss,
    reason = "a few seconds in nanoseconds fit a float"
)]
const fn bounds() -> [f64; LATENCY_BOUNDS_NS.len()] {
    let mut bounds = [0.0; LATENCY_BOUNDS_NS.len()];
    let mut index = 0;
    while index < bounds.len() {
        bounds[index] = LATENCY_BOUNDS_NS[index] as f64 / 1e9;
        index += 1;
    }
    bounds
}

/// Time from a query to its answer, in seconds.
pub type Latencies = Histogram<{ LATENCY_BOUNDS.len() }>;

/// Labels of answered lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AnswerLabels {
    /// Who asked.
    pub owner: Owner,
    /// The response code in the answer's header.
    pub response: u32,
}

/// Answered lookups of one label set.
#[derive(Debug)]
pub struct Answered(pub Latencies);

impl Default for Answered {
    fn default() -> Self {
        Self(Histogram::new(&LATENCY_BOUNDS))
    }
}

/// Most owners of which it is kept how many lookups the agent gave up; the kernel side has room for
/// as many.
const MOST_GIVEN_UP: usize = 8_192;

/// The book of lookups: takes the kernel side's counts and what the agent gave up, hands out
/// bounded series.
#[derive(Debug)]
pub struct DnsBook {
    answers: Cumulative<AnswerKey, AnswerCounts, AnswerLabels, Answered>,
    counts: Cumulative<OwnerKey, DnsCounts, Owner, DnsCounts>,
    /// Lookups that the agent found waiting too long.
    given_up: HashMap<OwnerKey, u64>,
}

impl DnsBook {
    /// An empty one with at most `most` label sets per family.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            answers: Cumulative::new(most),
            counts: Cumulative::new(most),
            given_up: HashMap::new(),
        }
    }

    /// Counts a lookup that the agent found waiting too long; shown from the next
    /// [`DnsBook::take`] on.
    pub fn give_up(&mut self, owner: &OwnerKey) {
        // Past the bound, it is counted of nobody in its namespace.
        let known = self.given_up.contains_key(owner) || self.given_up.len() < MOST_GIVEN_UP;
        let owner = if known { *owner } else { OwnerKey::default() };
        *self.given_up.entry(owner).or_default() += 1;
    }

    /// Counts with what the agent gave up.
    #[must_use]
    pub fn with_given_up(
        &self,
        mut counts: Vec<(OwnerKey, DnsCounts)>,
    ) -> Vec<(OwnerKey, DnsCounts)> {
        let seen: HashSet<OwnerKey> = counts.iter().map(|(owner, _)| *owner).collect();
        let unseen = self.given_up.keys().filter(|owner| !seen.contains(owner));
        // Those whose other counts had no room.
        counts.extend(unseen.map(|owner| (*owner, DnsCounts::default())));
        for (owner, counts) in &mut counts {
            counts.unanswered += self.given_up.get(owner).copied().unwrap_or(0);
        }
        counts
    }

    /// Takes in what the kernel side counts, ever growing; `counts` are those of
    /// [`DnsBook::with_given_up`].
    pub fn take(
        &mut self,
        answers: &[(AnswerKey, AnswerCounts)],
        counts: &[(OwnerKey, DnsCounts)],
        workloads: &mut dyn Workloads,
    ) {
        self.answers.take(
            answers,
            |key| {
                Some(AnswerLabels {
                    owner: Owner::of(&key.owner, workloads),
                    response: key.response,
                })
            },
            |Answered(latencies), _, growth| {
                let (now, before) = (growth.now, growth.before);
                let mut more = now.buckets;
                for (more, before) in more.iter_mut().zip(before.buckets) {
                    *more = more.saturating_sub(before);
                }
                latencies.add(more, seconds(growth.of(|counts| counts.sum_ns)));
            },
        );
        self.counts.take(
            counts,
            |key| Some(Owner::of(key, workloads)),
            |sum, _, growth| {
                sum.queries += growth.of(|counts| counts.queries);
                sum.repeats += growth.of(|counts| counts.repeats);
                sum.unanswered += growth.of(|counts| counts.unanswered);
                sum.late += growth.of(|counts| counts.late);
                sum.truncated += growth.of(|counts| counts.truncated);
                sum.strays += growth.of(|counts| counts.strays);
                sum.malformed += growth.of(|counts| counts.malformed);
            },
        );
    }

    /// Forgets namespaces of which `gone` says so and what has not changed for `idle`, and returns
    /// the kernel side's keys that are to be deleted.
    pub fn forget(
        &mut self,
        idle: Duration,
        gone: impl Fn(Namespace) -> bool,
    ) -> (Vec<AnswerKey>, Vec<OwnerKey>) {
        let answers = self.answers.forget(idle, |key| gone(key.into()));
        let owners = self.counts.forget(idle, |owner| gone(owner.into()));
        for owner in &owners {
            self.given_up.remove(owner);
        }
        self.given_up.retain(|owner, _| !gone(owner.into()));
        (answers, owners)
    }

    /// Changes how many label sets a family may have.
    pub fn limit(&mut self, most: usize) {
        self.answers.limit(most);
        self.counts.limit(most);
    }

    /// Answered lookups.
    #[must_use]
    pub fn answers(&self) -> &Series<AnswerLabels, Answered> {
        self.answers.series()
    }

    /// Everything else.
    #[must_use]
    pub fn counts(&self) -> &Series<Owner, DnsCounts> {
        self.counts.series()
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a float holds 100 days in nanoseconds"
)]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The name of a response code (IANA's "DNS RCODEs"), as far as a message's header can hold it.
#[must_use]
pub fn response_name(code: u32) -> &'static str {
    const NAMES: [&str; 12] = [
        "NOERROR",
        "FORMERR",
        "SERVFAIL",
        "NXDOMAIN",
        "NOTIMP",
        "REFUSED",
        "YXDOMAIN",
        "YXRRSET",
        "NXRRSET",
        "NOTAUTH",
        "NOTZONE",
        "DSOTYPENI",
    ];
    usize::try_from(code)
        .ok()
        .and_then(|code| NAMES.get(code).copied())
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn owner(netns: u32, comm: &[u8]) -> OwnerKey {
        let mut owner = OwnerKey {
            netns,
            ..OwnerKey::default()
        };
        owner.comm[..comm.len()].copy_from_slice(comm);
        owner
    }

    fn answers(
        owner: OwnerKey,
        response: u32,
        bucket: usize,
        count: u64,
    ) -> (AnswerKey, AnswerCounts) {
        let mut counts = AnswerCounts::default();
        counts.buckets[bucket] = count;
        counts.sum_ns = count * 1_000_000_000;
        let key = AnswerKey {
            owner,
            response,
            reserved: 0,
        };
        (key, counts)
    }

    #[test]
    fn the_kernels_buckets_become_a_histogram_by_what_they_rose() {
        let mut book = DnsBook::new(9);
        let curl = owner(1, b"curl");
        let last = LATENCY_BOUNDS_NS.len();
        book.take(&[answers(curl, 0, 0, 2)], &[], &mut ());
        book.take(
            &[answers(curl, 0, 0, 5), answers(curl, 3, last, 1)],
            &[],
            &mut (),
        );
        let found = |response| {
            let mut all = book.answers().iter();
            let (labels, Answered(latencies)) = all
                .find(|(labels, _)| labels.unwrap().response == response)
                .unwrap();
            assert_eq!(labels.unwrap().owner.process.to_string(), "curl");
            latencies.clone()
        };
        assert_eq!(found(0).count(), 5);
        assert!((found(0).sum() - 5.0).abs() < 1e-9);
        assert_eq!(found(0).buckets().next(), Some((0.000_25, 5)));
        assert_eq!(found(3).buckets().last(), Some((f64::INFINITY, 1)));
    }

    #[test]
    fn cgroups_of_one_label_set_add_up_and_the_agents_own_count_is_kept() {
        let mut book = DnsBook::new(9);
        let counts = DnsCounts {
            queries: 3,
            unanswered: 1,
            ..DnsCounts::default()
        };
        let one = owner(1, b"curl");
        let two = OwnerKey { cgroup: 7, ..one };
        let take = |book: &mut DnsBook| {
            let all = book.with_given_up(vec![(one, counts), (two, counts)]);
            book.take(&[], &all, &mut ());
        };
        take(&mut book);
        book.give_up(&two);
        take(&mut book);
        take(&mut book);
        let (_, values) = book.counts().iter().next().unwrap();
        assert_eq!((values.queries, values.unanswered), (6, 3));
        // One whose other counts had no room in the kernel.
        book.give_up(&owner(2, b"wget"));
        take(&mut book);
        let sum: u64 = book.counts().iter().map(|(_, it)| it.unanswered).sum();
        assert_eq!(sum, 4);
    }

    #[test]
    fn a_namespace_that_is_gone_leaves_nothing() {
        let mut book = DnsBook::new(9);
        let (dead, live) = (owner(1, b"a"), owner(2, b"a"));
        let counts = DnsCounts {
            queries: 1,
            ..DnsCounts::default()
        };
        book.give_up(&dead);
        book.take(
            &[answers(dead, 3, 0, 1), answers(live, 0, 0, 1)],
            &[(dead, counts), (live, counts)],
            &mut (),
        );
        let (answers, owners) = book.forget(HOUR, |namespace| namespace.number == 1);
        assert_eq!((answers.len(), owners), (1, vec![dead]));
        assert_eq!(book.counts().iter().count(), 1);
        assert_eq!(book.answers().iter().count(), 1);
        assert!(book.given_up.is_empty());
    }

    #[test]
    fn every_code_of_a_header_has_a_name() {
        assert_eq!(response_name(0), "NOERROR");
        assert_eq!(response_name(3), "NXDOMAIN");
        assert_eq!(response_name(15), "other");
        assert_eq!(response_name(u32::MAX), "other");
    }
}
