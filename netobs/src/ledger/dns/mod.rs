//! Name lookups by owner and response code.

mod question;

use std::collections::{BTreeMap, HashMap, HashSet};

use netobs_common::{
    dns::{AnswerCounts, AnswerKey, DnsCounts, LATENCY_BOUNDS_NS, Lookup},
    owner::OwnerKey,
};

pub use self::question::{Malformed, Question};
use super::{histogram::Histogram, series::Series};
use crate::sys::owner::Comm;

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

/// Labels of the DNS families.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsLabels {
    /// Inode number of the namespace.
    pub netns: u32,
    /// Name of the process that asked; empty when nobody did.
    pub process: String,
}

/// What one label set holds.
#[derive(Debug, Default)]
pub struct DnsValues {
    /// Answered lookups by response code.
    pub answers: BTreeMap<u32, Latencies>,
    /// Everything else.
    pub counts: DnsCounts,
}

/// The book of lookups: takes the kernel side's counts and what the agent gave up, hands out
/// bounded series.
#[derive(Debug)]
pub struct DnsBook {
    answers: HashMap<AnswerKey, AnswerCounts>,
    counts: HashMap<OwnerKey, DnsCounts>,
    admitted: HashMap<DnsLabels, Option<DnsLabels>>,
    series: Series<DnsLabels, DnsValues>,
}

impl DnsBook {
    /// An empty one with at most `most` label sets.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            answers: HashMap::new(),
            counts: HashMap::new(),
            admitted: HashMap::new(),
            series: Series::new(most),
        }
    }

    /// Takes in answered lookups as the kernel side counts them, ever growing.
    #[allow(
        clippy::cast_precision_loss,
        reason = "a float holds 100 days in nanoseconds to the microsecond"
    )]
    pub fn take_answers(&mut self, answers: &[(AnswerKey, AnswerCounts)]) {
        for (key, now) in answers {
            let before = self.answers.insert(*key, *now).unwrap_or_default();
            let mut more = now.buckets;
            for (more, before) in more.iter_mut().zip(before.buckets) {
                *more = more.saturating_sub(before);
            }
            let (over, within) = match more.split_last_chunk::<1>() {
                Some((within, [over])) => (*over, within),
                None => continue,
            };
            let Ok(within) = <[u64; LATENCY_BOUNDS.len()]>::try_from(within) else {
                continue; // of the same length, by its type
            };
            let sum = now.sum_ns.saturating_sub(before.sum_ns) as f64 / 1e9;
            self.values(&key.owner)
                .answers
                .entry(key.response)
                .or_insert_with(|| Histogram::new(&LATENCY_BOUNDS))
                .add(within, over, sum);
        }
    }

    /// Takes in everything else that the kernel side counts, ever growing.
    pub fn take_counts(&mut self, counts: &[(OwnerKey, DnsCounts)]) {
        for (owner, now) in counts {
            let before = self.counts.insert(*owner, *now).unwrap_or_default();
            let sum = &mut self.values(owner).counts;
            sum.queries += now.queries.saturating_sub(before.queries);
            sum.repeats += now.repeats.saturating_sub(before.repeats);
            sum.unanswered += now.unanswered.saturating_sub(before.unanswered);
            sum.late += now.late.saturating_sub(before.late);
            sum.truncated += now.truncated.saturating_sub(before.truncated);
            sum.strays += now.strays.saturating_sub(before.strays);
            sum.malformed += now.malformed.saturating_sub(before.malformed);
        }
    }

    /// Counts a lookup that the agent found waiting too long.
    pub fn give_up(&mut self, lookup: &Lookup) {
        self.values(&lookup.owner).counts.unanswered += 1;
    }

    fn values(&mut self, owner: &OwnerKey) -> &mut DnsValues {
        let labels = DnsLabels {
            netns: owner.netns,
            process: Comm::from_bytes(&owner.comm).to_string(),
        };
        let series = &mut self.series;
        let admitted = self
            .admitted
            .entry(labels)
            .or_insert_with_key(|labels| series.admit(labels));
        series.value(admitted.as_ref())
    }

    /// Forgets namespaces, and returns the owners in them with their response codes: the kernel
    /// side's keys that are to be deleted.
    pub fn forget(&mut self, gone: &HashSet<u32>) -> HashMap<OwnerKey, Vec<u32>> {
        let mut keys: HashMap<OwnerKey, Vec<u32>> = HashMap::new();
        for owner in self.counts.keys() {
            keys.insert(*owner, Vec::new());
        }
        for key in self.answers.keys() {
            keys.entry(key.owner).or_default().push(key.response);
        }
        keys.retain(|owner, _| gone.contains(&owner.netns));
        self.answers
            .retain(|key, _| !gone.contains(&key.owner.netns));
        self.counts.retain(|owner, _| !gone.contains(&owner.netns));
        self.admitted
            .retain(|labels, _| !gone.contains(&labels.netns));
        self.series
            .retain(|labels, _| !gone.contains(&labels.netns));
        keys
    }

    /// The series.
    #[must_use]
    pub fn series(&self) -> &Series<DnsLabels, DnsValues> {
        &self.series
    }
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
    fn the_kernel_s_buckets_become_a_histogram_by_what_they_rose() {
        let mut book = DnsBook::new(9);
        let curl = owner(1, b"curl");
        book.take_answers(&[answers(curl, 0, 0, 2)]);
        book.take_answers(&[answers(curl, 0, 0, 5)]);
        let last = LATENCY_BOUNDS_NS.len();
        book.take_answers(&[answers(curl, 3, last, 1)]);
        let (labels, values) = book.series().iter().next().unwrap();
        assert_eq!(labels.unwrap().process, "curl");
        let histogram = &values.answers[&0];
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum() - 5.0).abs() < 1e-9);
        assert_eq!(histogram.buckets().next(), Some((0.000_25, 5)));
        assert_eq!(
            values.answers[&3].buckets().last(),
            Some((f64::INFINITY, 1))
        );
    }

    #[test]
    fn cgroups_of_one_label_set_add_up_and_the_agent_s_own_count_is_kept() {
        let mut book = DnsBook::new(9);
        let counts = DnsCounts {
            queries: 3,
            unanswered: 1,
            ..DnsCounts::default()
        };
        let one = owner(1, b"curl");
        let two = OwnerKey { cgroup: 7, ..one };
        book.take_counts(&[(one, counts), (two, counts)]);
        book.give_up(&Lookup {
            owner: two,
            ..Lookup::EMPTY
        });
        book.take_counts(&[(one, counts), (two, counts)]);
        let (_, values) = book.series().iter().next().unwrap();
        assert_eq!((values.counts.queries, values.counts.unanswered), (6, 3));
    }

    #[test]
    fn a_namespace_that_is_gone_leaves_nothing() {
        let mut book = DnsBook::new(9);
        let (dead, live) = (owner(1, b"a"), owner(2, b"a"));
        book.take_counts(&[(dead, DnsCounts::default()), (live, DnsCounts::default())]);
        book.take_answers(&[answers(dead, 3, 0, 1), answers(live, 0, 0, 1)]);
        let keys = book.forget(&HashSet::from([1]));
        assert_eq!(keys, HashMap::from([(dead, vec![3])]));
        assert_eq!(book.series().iter().count(), 1);
    }

    #[test]
    fn every_code_of_a_header_has_a_name() {
        assert_eq!(response_name(0), "NOERROR");
        assert_eq!(response_name(3), "NXDOMAIN");
        assert_eq!(response_name(15), "other");
        assert_eq!(response_name(u32::MAX), "other");
    }
}
