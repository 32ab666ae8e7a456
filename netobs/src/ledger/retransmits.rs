//! Retransmitted segments by what they are attributed to.

use std::collections::{BTreeMap, HashMap, HashSet};

use netobs_common::ledger::{RetransmitCounts, RetransmitKey, RetransmitType, Role};
use zerocopy::TryFromBytes as _;

use super::{namespace::Namespace, series::Series};

/// Labels of the retransmission families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RetransmitLabels {
    /// Inode number of the namespace; 0 when the method cannot tell.
    pub netns: u32,
    /// Its identity, which is not shown: the numbers of a namespace that has taken the number of
    /// another are its own.
    pub identity: u64,
    /// Which end the local socket is.
    pub role: Role,
    /// Local port of a server, remote port of a client; 0 when ephemeral.
    pub port: u16,
}

/// Counts of one label set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetransmitValues {
    /// Segments, indexed by [`RetransmitType`].
    pub segments: [u64; TYPES.len()],
    /// Attempts that the stack could not send.
    pub failures: u64,
}

/// Every type, in numeric order.
pub const TYPES: [RetransmitType; 6] = [
    RetransmitType::Timeout,
    RetransmitType::Fast,
    RetransmitType::TailLossProbe,
    RetransmitType::Syn,
    RetransmitType::SynAck,
    RetransmitType::Other,
];

/// Sums of one namespace, to hold against the kernel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetransmitSums {
    /// As Tcp RetransSegs.
    pub segments: u64,
    /// As TcpExt TCPSynRetrans.
    pub syn_segments: u64,
}

/// The book of retransmissions: takes the kernel side's counts, hands out bounded series.
#[derive(Debug)]
pub struct RetransmitBook {
    seen: HashMap<RetransmitKey, RetransmitCounts>,
    admitted: HashMap<RetransmitLabels, Option<RetransmitLabels>>,
    series: Series<RetransmitLabels, RetransmitValues>,
    sums: BTreeMap<Namespace, RetransmitSums>,
    /// Namespaces whose numbers others have: what still comes of them counts no more.
    ended: HashSet<Namespace>,
}

impl RetransmitBook {
    /// An empty one with at most `most` label sets.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            seen: HashMap::new(),
            admitted: HashMap::new(),
            series: Series::new(most),
            sums: BTreeMap::new(),
            ended: HashSet::new(),
        }
    }

    /// Takes in the kernel side's counts, which only ever grow. Returns the namespaces of which
    /// there was nothing before.
    pub fn take(&mut self, counts: &[(RetransmitKey, RetransmitCounts)]) -> Vec<Namespace> {
        let mut appeared = Vec::new();
        for (key, now) in counts {
            let Some((labels, kind)) = labels(key) else {
                continue;
            };
            let namespace = namespace(key);
            if self.ended.contains(&namespace) {
                continue;
            }
            let before = self.seen.insert(*key, *now).unwrap_or_default();
            let series = &mut self.series;
            let admitted = *self
                .admitted
                .entry(labels)
                .or_insert_with(|| series.admit(&labels));
            let values = series.value(admitted.as_ref());
            values.segments[kind as usize] += now.segments.saturating_sub(before.segments);
            values.failures += now.failures.saturating_sub(before.failures);
            let sums = self.sums.entry(namespace).or_insert_with(|| {
                appeared.push(namespace);
                RetransmitSums::default()
            });
            sums.segments += now.segments.saturating_sub(before.segments);
            sums.syn_segments += now.syn_segments.saturating_sub(before.syn_segments);
        }
        appeared
    }

    /// What has been attributed, folded or not, to the namespace that has this number.
    #[must_use]
    pub fn sums(&self, number: u32) -> RetransmitSums {
        self.sums
            .range(Namespace::all(number))
            .fold(RetransmitSums::default(), |all, (_, sums)| RetransmitSums {
                segments: all.segments + sums.segments,
                syn_segments: all.syn_segments + sums.syn_segments,
            })
    }

    /// Takes note that another namespace has the number now. What that one has is its own: the
    /// old one's series end.
    pub fn end(&mut self, namespace: Namespace) {
        self.forget_series(|labels| {
            (labels.netns, labels.identity) == (namespace.number, namespace.identity)
        });
        self.sums.remove(&namespace);
        self.ended.insert(namespace);
    }

    /// Forgets namespaces of which nothing can come any more, and returns the kernel side's keys that
    /// are to be deleted.
    pub fn forget(&mut self, gone: impl Fn(Namespace) -> bool) -> Vec<RetransmitKey> {
        let keys: Vec<_> = self
            .seen
            .keys()
            .filter(|key| gone(namespace(key)))
            .copied()
            .collect();
        for key in &keys {
            self.seen.remove(key);
        }
        self.forget_series(|labels| {
            gone(Namespace {
                number: labels.netns,
                identity: labels.identity,
            })
        });
        self.sums.retain(|namespace, _| !gone(*namespace));
        self.ended.retain(|namespace| !gone(*namespace));
        keys
    }

    fn forget_series(&mut self, gone: impl Fn(&RetransmitLabels) -> bool) {
        self.admitted.retain(|labels, _| !gone(labels));
        self.series.retain(|labels, _| !gone(labels));
    }

    /// The series.
    #[must_use]
    pub fn series(&self) -> &Series<RetransmitLabels, RetransmitValues> {
        &self.series
    }
}

fn namespace(key: &RetransmitKey) -> Namespace {
    Namespace {
        number: key.netns,
        identity: key.net,
    }
}

fn labels(key: &RetransmitKey) -> Option<(RetransmitLabels, RetransmitType)> {
    let role = Role::try_read_from_bytes(&[key.role]).ok()?;
    let kind = RetransmitType::try_read_from_bytes(&[key.kind]).ok()?;
    Some((
        RetransmitLabels {
            netns: key.netns,
            identity: key.net,
            role,
            port: key.port,
        },
        kind,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(
        netns: u32,
        port: u16,
        kind: RetransmitType,
        segments: u64,
    ) -> (RetransmitKey, RetransmitCounts) {
        (
            RetransmitKey {
                net: 0,
                netns,
                port,
                role: Role::Server as u8,
                kind: kind as u8,
            },
            RetransmitCounts {
                segments,
                failures: 1,
                syn_segments: 0,
            },
        )
    }

    #[test]
    fn counts_are_cumulative_and_folding_keeps_the_sums() {
        let mut book = RetransmitBook::new(1);
        book.take(&[
            entry(1, 80, RetransmitType::Fast, 5),
            entry(1, 81, RetransmitType::Timeout, 2),
        ]);
        book.take(&[
            entry(1, 80, RetransmitType::Fast, 7),
            entry(1, 81, RetransmitType::Timeout, 2),
        ]);
        assert_eq!(book.sums(1).segments, 9);
        let total: u64 = book
            .series()
            .iter()
            .map(|(_, v)| v.segments.iter().sum::<u64>())
            .sum();
        assert_eq!(total, 9);
        assert_eq!(book.series().folded(), 1);
    }

    #[test]
    fn bytes_that_are_no_role_or_type_are_passed_over() {
        let mut book = RetransmitBook::new(9);
        let (mut key, counts) = entry(1, 80, RetransmitType::Fast, 5);
        key.kind = 77;
        book.take(&[(key, counts)]);
        assert_eq!(book.series().iter().count(), 0);
    }

    #[test]
    fn a_namespace_that_is_gone_leaves_nothing() {
        let mut book = RetransmitBook::new(9);
        book.take(&[
            entry(1, 80, RetransmitType::Fast, 5),
            entry(2, 80, RetransmitType::Fast, 5),
        ]);
        assert_eq!(book.forget(|namespace| namespace.number == 1).len(), 1);
        assert_eq!(book.series().iter().count(), 1);
        assert_eq!(book.sums(1), RetransmitSums::default());
        // What the kernel side has forgotten too begins at zero again.
        book.take(&[entry(1, 80, RetransmitType::Fast, 2)]);
        assert_eq!(book.sums(1).segments, 2);
    }

    #[test]
    fn a_number_that_is_used_again_is_another_s() {
        let of = |identity, segments| {
            let (mut key, counts) = entry(1, 80, RetransmitType::Fast, segments);
            key.net = identity;
            (key, counts)
        };
        let life = |identity| Namespace {
            number: 1,
            identity,
        };
        let total = |book: &RetransmitBook| -> u64 {
            book.series().iter().flat_map(|(_, v)| v.segments).sum()
        };
        let mut book = RetransmitBook::new(9);
        assert_eq!(book.take(&[of(7, 5)]), [life(7)]);
        assert_eq!(book.take(&[of(7, 5), of(3, 2)]), [life(3)]);
        book.end(life(7));
        assert_eq!((book.sums(1).segments, total(&book)), (2, 2));
        // The old one's last segments come late.
        assert_eq!(book.take(&[of(7, 9), of(3, 2)]), []);
        assert_eq!((book.sums(1).segments, total(&book)), (2, 2));
        assert_eq!(book.forget(|namespace| namespace == life(7)).len(), 1);
        assert_eq!(book.sums(1).segments, 2);
    }
}
