//! Listen drops that no event tells of: what the ledger has counted, less what events have told.
//!
//! Dropped SYNs have no event on kernels without fentry and kprobes, a listener that drops thousands
//! in a second has an event for some of them only, and the ring may have been full. What is left is
//! told in one event by listener, stage and reason at each look, so that the events of a listener add
//! up to its count.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use netobs_common::{
    event::{DROP_POLLED, DROP_SEEN, Endpoints, EventHeader, EventKind, ListenDrop},
    kernel::NO_REASON,
    ledger::{ListenCounts, Reason, Stage},
    owner::Owner,
};

use crate::ledger::listeners::{ListenerBook, ListenerLabels, ListenerValues};

const STAGES: usize = Stage::ALL.len();
const REASONS: usize = Reason::ALL.len();

/// What one label set has counted and told.
#[derive(Debug, Default)]
struct Watched {
    counted: ListenCounts,
    /// Counted less told, by stage and reason; negative when an event was faster than the count.
    open: [[i64; REASONS]; STAGES],
}

/// What has been counted and told, by label set (`None`: those that were folded).
#[derive(Debug, Default)]
pub(super) struct DropWatch {
    watched: HashMap<Option<ListenerLabels>, Watched>,
    begun: bool,
}

/// Drops by one label set in one look.
pub(super) type Risen<'a> = (Option<&'a ListenerLabels>, u64);

impl DropWatch {
    /// Compares the book with the last look, and hands each rise to `visit`. The first look is
    /// compared with nothing.
    pub(super) fn look<'a>(&mut self, book: &'a ListenerBook, mut visit: impl FnMut(Risen<'a>)) {
        let begun = std::mem::replace(&mut self.begun, true);
        for (labels, values) in book.series().iter() {
            let now = values.counts;
            // Most have counted nothing.
            if now == ListenCounts::default() {
                continue;
            }
            let watched = self.watched.entry(labels.copied()).or_default();
            if watched.counted == now {
                continue;
            }
            let mut risen = 0;
            for ((open, now), before) in watched
                .open
                .iter_mut()
                .flatten()
                .zip(now.drops.iter().flatten())
                .zip(watched.counted.drops.iter().flatten())
            {
                let more = now.saturating_sub(*before);
                risen += more;
                if begun {
                    *open = open.saturating_add_unsigned(more);
                }
            }
            watched.counted = now;
            if begun && risen > 0 {
                visit((labels, risen));
            }
        }
    }

    /// Takes note of an event; `labels` are those of its socket.
    pub(super) fn told(&mut self, drop: &ListenDrop, labels: Option<ListenerLabels>) {
        if drop.method != DROP_SEEN {
            return;
        }
        let watched = self.watched.entry(labels).or_default();
        let cell = watched
            .open
            .get_mut(usize::from(drop.stage))
            .and_then(|reasons| reasons.get_mut(usize::from(drop.cause)));
        if let Some(cell) = cell {
            *cell = cell.saturating_sub(i64::from(drop.drops));
        }
    }

    /// Events for what has been counted and not told, as of `ktime_ns`.
    /// `who` tells the socket of a label set, when there is but one, and who listens.
    pub(super) fn untold(
        &mut self,
        book: &ListenerBook,
        ktime_ns: u64,
        who: impl Fn(&ListenerLabels) -> (u64, Owner),
    ) -> Vec<ListenDrop> {
        let mut events = Vec::new();
        for (labels, watched) in &mut self.watched {
            if watched.open == [[0; REASONS]; STAGES] {
                continue;
            }
            for (stage, reasons) in Stage::ALL.into_iter().zip(&mut watched.open) {
                balance(reasons);
                for (reason, open) in Reason::ALL.into_iter().zip(reasons) {
                    let Ok(drops) = u32::try_from(*open) else {
                        continue; // told before it was counted
                    };
                    if drops > 0 {
                        let values = book
                            .series()
                            .iter()
                            .find(|(set, _)| *set == labels.as_ref());
                        let values = values.map(|(_, values)| values);
                        let (sk, owner) = labels.as_ref().map(&who).unwrap_or_default();
                        let at = (labels.as_ref(), values);
                        events.push(ListenDrop {
                            sk,
                            owner,
                            ..polled(at, (stage, reason), drops, ktime_ns)
                        });
                        *open = 0;
                    }
                }
            }
        }
        events
    }

    /// Forgets label sets that the book has forgotten.
    pub(super) fn forget(&mut self, book: &ListenerBook) {
        self.watched.retain(|labels, _| {
            labels
                .as_ref()
                .is_none_or(|labels| book.series().has(labels))
        });
    }
}

/// An event and the ledger may name different reasons for the same drop: within one stage they
/// settle each other.
fn balance(reasons: &mut [i64; REASONS]) {
    let mut surplus: i64 = -reasons.iter().filter(|open| **open < 0).sum::<i64>();
    if surplus == 0 {
        return;
    }
    let wanted: i64 = reasons.iter().filter(|open| **open > 0).sum();
    let settled = surplus.min(wanted);
    surplus = settled;
    let mut wanted = settled;
    for open in reasons {
        if *open < 0 {
            let part = surplus.min(-*open);
            *open += part;
            surplus -= part;
        } else {
            let part = wanted.min(*open);
            *open -= part;
            wanted -= part;
        }
    }
}

fn polled(
    (labels, values): (Option<&ListenerLabels>, Option<&ListenerValues>),
    (stage, cause): (Stage, Reason),
    drops: u32,
    ktime_ns: u64,
) -> ListenDrop {
    let address = labels.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |labels| labels.address);
    let (family, bytes) = match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            (libc::AF_INET, bytes)
        }
        IpAddr::V6(address) => (libc::AF_INET6, address.octets()),
    };
    let least = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    ListenDrop {
        header: EventHeader {
            ktime_ns,
            kind: EventKind::ListenDrop as u32,
            netns: labels.map_or(0, |labels| labels.owner.netns),
        },
        sk: 0,
        owner: Owner::default(),
        ends: Endpoints {
            local_address: bytes,
            local_port: labels.map_or(0, |labels| labels.port),
            family: u16::try_from(family).unwrap_or_default(),
            ..Endpoints::default()
        },
        ack_backlog: values.map_or(0, |values| least(values.queue_length)),
        max_ack_backlog: values.map_or(0, |values| least(values.queue_limit)),
        drops,
        reason: NO_REASON,
        #[allow(clippy::cast_possible_truncation, reason = "three of each")]
        stage: stage as u8,
        #[allow(clippy::cast_possible_truncation, reason = "three of each")]
        cause: cause as u8,
        method: DROP_POLLED,
        reserved: [0; 5],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_one_stage_settle_each_other() {
        for (mut open, want) in [
            ([5, 0, 0], [5, 0, 0]),
            ([5, 0, -3], [2, 0, 0]),
            ([-5, 2, 1], [-2, 0, 0]),
            ([-1, -1, 2], [0, 0, 0]),
            ([-1, 0, 0], [-1, 0, 0]),
        ] {
            balance(&mut open);
            assert_eq!(open, want);
        }
    }
}
