//! Retransmitted segments by what they are attributed to.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use netobs_common::ledger::{RetransmitCounts, RetransmitKey, RetransmitType, Role};
use zerocopy::TryFromBytes as _;

use super::{
    cumulative::Cumulative,
    namespace::Namespace,
    owner::{Owner, Workloads},
    series::Series,
};

/// Labels of the retransmission families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RetransmitLabels {
    /// Whose sockets.
    pub owner: Owner,
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
    counts: Cumulative<RetransmitKey, RetransmitCounts, RetransmitLabels, RetransmitValues>,
    sums: BTreeMap<Namespace, RetransmitSums>,
}

impl RetransmitBook {
    /// From now on at most `most` label sets.
    pub fn limit(&mut self, most: usize) {
        self.counts.limit(most);
    }

    /// An empty one with at most `most` label sets.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            counts: Cumulative::new(most),
            sums: BTreeMap::new(),
        }
    }

    /// Takes in the kernel side's counts, which only ever grow.
    pub fn take(
        &mut self,
        counts: &[(RetransmitKey, RetransmitCounts)],
        workloads: &mut dyn Workloads,
    ) {
        let sums = &mut self.sums;
        self.counts.take(
            counts,
            |key| {
                RetransmitType::try_read_from_bytes(&[key.kind]).ok()?;
                Some(RetransmitLabels {
                    owner: Owner::of(&key.owner, workloads),
                    role: Role::try_read_from_bytes(&[key.role]).ok()?,
                    port: key.port,
                })
            },
            |values, key, growth| {
                let segments = growth.of(|counts| counts.segments);
                if let Some(by_type) = values.segments.get_mut(usize::from(key.kind)) {
                    *by_type += segments;
                }
                values.failures += growth.of(|counts| counts.failures);
                let sums = sums.entry(key.into()).or_default();
                sums.segments += segments;
                sums.syn_segments += growth.of(|counts| counts.syn_segments);
            },
        );
    }

    /// What has been attributed, folded and forgotten series included, to the namespace that has
    /// this number.
    #[must_use]
    pub fn sums(&self, number: u32) -> RetransmitSums {
        self.sums
            .range(Namespace::all(number))
            .fold(RetransmitSums::default(), |all, (_, sums)| RetransmitSums {
                segments: all.segments + sums.segments,
                syn_segments: all.syn_segments + sums.syn_segments,
            })
    }

    /// Forgets namespaces, and keys that have not changed for `idle`; returns the kernel side's
    /// keys that are to be deleted.
    pub fn forget(&mut self, gone: &HashSet<u32>, idle: Duration) -> Vec<RetransmitKey> {
        self.sums
            .retain(|namespace, _| !gone.contains(&namespace.number));
        self.counts
            .forget(idle, |key| gone.contains(&key.owner.netns))
    }

    /// Forgets a namespace whose number another has now: what that one has is its own. Returns the
    /// kernel side's keys that are to be deleted.
    pub fn end(&mut self, namespace: Namespace) -> Vec<RetransmitKey> {
        self.sums.remove(&namespace);
        self.counts
            .forget(Duration::MAX, |key| Namespace::from(key) == namespace)
    }

    /// The series.
    #[must_use]
    pub fn series(&self) -> &Series<RetransmitLabels, RetransmitValues> {
        self.counts.series()
    }
}

#[cfg(test)]
mod tests {
    use netobs_common::owner::OwnerKey;

    use super::*;

    fn entry(
        netns: u32,
        port: u16,
        kind: RetransmitType,
        segments: u64,
    ) -> (RetransmitKey, RetransmitCounts) {
        (
            RetransmitKey {
                owner: OwnerKey {
                    netns,
                    ..OwnerKey::default()
                },
                port,
                role: Role::Server as u8,
                kind: kind as u8,
                reserved: 0,
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
        book.take(
            &[
                entry(1, 80, RetransmitType::Fast, 5),
                entry(1, 81, RetransmitType::Timeout, 2),
            ],
            &mut (),
        );
        book.take(
            &[
                entry(1, 80, RetransmitType::Fast, 7),
                entry(1, 81, RetransmitType::Timeout, 2),
            ],
            &mut (),
        );
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
        book.take(&[(key, counts)], &mut ());
        assert_eq!(book.series().iter().count(), 0);
    }

    #[test]
    fn a_namespace_that_is_gone_leaves_nothing() {
        let mut book = RetransmitBook::new(9);
        book.take(
            &[
                entry(1, 80, RetransmitType::Fast, 5),
                entry(2, 80, RetransmitType::Fast, 5),
            ],
            &mut (),
        );
        assert_eq!(book.forget(&HashSet::from([1]), Duration::MAX).len(), 1);
        assert_eq!(book.series().iter().count(), 1);
        assert_eq!(book.sums(1), RetransmitSums::default());
    }
    #[test]
    fn a_number_that_is_used_again_is_another_s() {
        let of = |identity, segments| {
            let (mut key, counts) = entry(1, 80, RetransmitType::Fast, segments);
            key.owner.net = identity;
            (key, counts)
        };
        let total = |book: &RetransmitBook| -> u64 {
            book.series().iter().flat_map(|(_, v)| v.segments).sum()
        };
        let mut book = RetransmitBook::new(9);
        book.take(&[of(7, 5)], &mut ());
        book.take(&[of(7, 5), of(3, 2)], &mut ());
        assert_eq!((book.sums(1).segments, total(&book)), (7, 7));
        let ended = Namespace {
            number: 1,
            identity: 7,
        };
        assert_eq!(book.end(ended).len(), 1);
        assert_eq!((book.sums(1).segments, total(&book)), (2, 2));
    }
}
