//! Retransmitted segments by what they are attributed to.

use std::collections::{HashMap, HashSet};

use netobs_common::ledger::{RetransmitCounts, RetransmitKey, RetransmitType, Role};
use zerocopy::TryFromBytes as _;

use super::series::Series;

/// Labels of the retransmission families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RetransmitLabels {
    /// Inode number of the namespace; 0 when the method cannot tell.
    pub netns: u32,
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
}

impl RetransmitBook {
    /// From now on at most `most` label sets.
    pub fn limit(&mut self, most: usize) {
        self.series.limit(most);
    }

    /// An empty one with at most `most` label sets.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            seen: HashMap::new(),
            admitted: HashMap::new(),
            series: Series::new(most),
        }
    }

    /// Takes in the kernel side's counts, which only ever grow.
    pub fn take(&mut self, counts: &[(RetransmitKey, RetransmitCounts)]) {
        for (key, now) in counts {
            let Some((labels, kind)) = labels(key) else {
                continue;
            };
            let before = self.seen.insert(*key, *now).unwrap_or_default();
            let series = &mut self.series;
            let admitted = *self
                .admitted
                .entry(labels)
                .or_insert_with(|| series.admit(&labels));
            let values = series.value(admitted.as_ref());
            values.segments[kind as usize] += now.segments.saturating_sub(before.segments);
            values.failures += now.failures.saturating_sub(before.failures);
        }
    }

    /// What has been attributed in a namespace, folded or not.
    #[must_use]
    pub fn sums(&self, netns: u32) -> RetransmitSums {
        self.seen.iter().filter(|(key, _)| key.netns == netns).fold(
            RetransmitSums::default(),
            |sums, (_, counts)| RetransmitSums {
                segments: sums.segments + counts.segments,
                syn_segments: sums.syn_segments + counts.syn_segments,
            },
        )
    }

    /// Forgets namespaces, and returns the kernel side's keys that are to be deleted.
    pub fn forget(&mut self, gone: &HashSet<u32>) -> Vec<RetransmitKey> {
        let keys: Vec<_> = self
            .seen
            .keys()
            .filter(|key| gone.contains(&key.netns))
            .copied()
            .collect();
        self.seen.retain(|key, _| !gone.contains(&key.netns));
        self.admitted
            .retain(|labels, _| !gone.contains(&labels.netns));
        self.series
            .retain(|labels, _| !gone.contains(&labels.netns));
        keys
    }

    /// The series.
    #[must_use]
    pub fn series(&self) -> &Series<RetransmitLabels, RetransmitValues> {
        &self.series
    }
}

fn labels(key: &RetransmitKey) -> Option<(RetransmitLabels, RetransmitType)> {
    let role = Role::try_read_from_bytes(&[key.role]).ok()?;
    let kind = RetransmitType::try_read_from_bytes(&[key.kind]).ok()?;
    Some((
        RetransmitLabels {
            netns: key.netns,
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
        assert_eq!(book.forget(&HashSet::from([1])).len(), 1);
        assert_eq!(book.series().iter().count(), 1);
        assert_eq!(book.sums(1), RetransmitSums::default());
    }
}
