//! What a diagnosis rests on.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path, time::Duration};

use netobs_common::{
    connection::{ConnectFailure, Latencies},
    ledger::ListenCounts,
};

use super::{NotSeen, Peers};
use crate::{
    audit::report::Report,
    ledger::{
        accepts::AcceptValues,
        connects::{ConnectLabels, ConnectValues},
        listeners::{Binding, ListenerLabels, ListenerValues, address},
        paths::PathTarget,
        resets::ResetLabels,
        retransmits::{RetransmitLabels, RetransmitValues},
    },
    metrics::View,
    path::{ErrorType, Measurement, Phase},
    probes::SignalInfo,
    sys::netstat::{Counter, Counters},
};

/// A listening address at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listening {
    /// Drops by stage and reason, overflows by stage.
    pub counts: ListenCounts,
    /// Connections that wait for `accept()`.
    pub length: u64,
    /// The limit in force.
    pub limit: u64,
    /// Longest queue in the last full minute.
    pub peak: u64,
    /// Whether `somaxconn` cut what `listen()` was asked for; `None` when that is not known.
    pub cut: Option<bool>,
    /// Sockets that listen.
    pub sockets: u64,
}

/// The books at one moment. Folded series are left out: they are nobody's.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Listeners.
    pub listeners: BTreeMap<ListenerLabels, Listening>,
    /// Accepted connections by namespace, address and port.
    pub accepts: BTreeMap<(u32, IpAddr, u16), AcceptValues>,
    /// Outgoing handshakes.
    pub connects: BTreeMap<ConnectLabels, ConnectValues>,
    /// Resets.
    pub resets: BTreeMap<ResetLabels, u64>,
    /// Retransmissions.
    pub retransmits: BTreeMap<RetransmitLabels, RetransmitValues>,
    /// The kernel's own counters by namespace.
    pub counters: BTreeMap<u32, Counters>,
    /// How well each signal is served.
    pub signals: Vec<SignalInfo>,
}

impl Snapshot {
    /// Of what a scrape would show.
    #[must_use]
    pub fn of(view: &View<'_>) -> Self {
        fn owned<'a, L: Copy + Ord + 'a, V: Copy + 'a>(
            series: impl Iterator<Item = (Option<&'a L>, &'a V)>,
        ) -> BTreeMap<L, V> {
            series
                .filter_map(|(labels, values)| Some((*labels?, *values)))
                .collect()
        }
        let listeners = view.listeners.series().iter();
        let accepts = view.accepts.series().iter();
        let namespaces = view.namespaces.iter();
        Self {
            listeners: listeners
                .filter_map(|(labels, values)| Some((*labels?, Listening::of(values))))
                .collect(),
            accepts: accepts
                .filter_map(|(key, values)| {
                    let key = key?;
                    let address = address(key.family, key.address);
                    Some(((key.netns, address, key.port), *values))
                })
                .collect(),
            connects: owned(view.connects.series().iter()),
            resets: owned(view.resets.series().iter()),
            retransmits: owned(view.retransmits.series().iter()),
            counters: namespaces.map(|ns| (ns.netns, ns.counters)).collect(),
            signals: view.agent.signals.clone(),
        }
    }
}

impl Listening {
    fn of(values: &ListenerValues) -> Self {
        let bound = |binding: Binding| {
            let sockets = values.bindings.get(binding as usize);
            sockets.copied().unwrap_or(0) > 0
        };
        Self {
            counts: values.counts,
            length: values.queue_length,
            limit: values.queue_limit,
            peak: values.peak,
            cut: if bound(Binding::Somaxconn) {
                Some(true)
            } else {
                bound(Binding::ListenArgument).then_some(false)
            },
            sockets: values.sockets,
        }
    }
}

/// How full the connection tracking table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// `net.netfilter.nf_conntrack_count`.
    pub entries: u64,
    /// `net.netfilter.nf_conntrack_max`.
    pub most: u64,
}

impl Conntrack {
    /// Reads it; `None` when nothing is tracked here.
    #[must_use]
    pub fn read(proc_root: &Path) -> Option<Self> {
        let number = |name: &str| {
            let path = proc_root.join("sys/net/netfilter").join(name);
            fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        Some(Self {
            entries: number("nf_conntrack_count")?,
            most: number("nf_conntrack_max")?,
        })
    }
}

/// What measuring a path came to in the window.
#[derive(Clone, Debug)]
pub struct PathSeen {
    /// The target, as given.
    pub target: String,
    /// Measurements.
    pub measurements: u64,
    /// How often each cause was met, by phase.
    pub failures: Vec<(Phase, ErrorType, u64)>,
    /// Measurements that were as expected, but slow.
    pub slow: u64,
    /// The latest that failed or was slow.
    pub trouble: Option<Measurement>,
}

impl PathSeen {
    /// Of what the path probes have noted.
    #[must_use]
    pub fn of(target: &str, noted: &PathTarget) -> Self {
        Self {
            target: target.to_owned(),
            measurements: noted.measurements,
            failures: noted.failures().collect(),
            slow: noted.slow_ones,
            trouble: noted.trouble.clone(),
        }
    }
}

/// Everything that the rules look at.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// How long was looked.
    pub window: Duration,
    /// The books at the beginning.
    pub before: Snapshot,
    /// The books at the end.
    pub after: Snapshot,
    /// Who was at the other end.
    pub peers: Peers,
    /// What the auditor says at the end, over the same window.
    pub audit: Option<Report>,
    /// The connection tracking table at the end.
    pub conntrack: Option<Conntrack>,
    /// The paths that were measured.
    pub paths: Vec<PathSeen>,
    /// What could not be had, besides what the signals say.
    pub not_seen: Vec<NotSeen>,
}

impl Evidence {
    /// What a counter of a namespace moved by in the window.
    #[must_use]
    pub fn moved(&self, netns: u32, counter: Counter) -> u64 {
        let value = |snapshot: &Snapshot| {
            let counters = snapshot.counters.get(&netns);
            counters.and_then(|counters| counters.get(counter))
        };
        let now = value(&self.after).unwrap_or(0);
        now.saturating_sub(value(&self.before).unwrap_or(0))
    }

    /// Every namespace that was there at the end.
    pub fn namespaces(&self) -> impl Iterator<Item = u32> {
        self.after.counters.keys().copied()
    }

    /// Outgoing handshakes of the window.
    pub fn connects(&self) -> impl Iterator<Item = (&ConnectLabels, ConnectValues)> {
        self.after.connects.iter().map(|(labels, now)| {
            let before = self
                .before
                .connects
                .get(labels)
                .copied()
                .unwrap_or_default();
            let mut change = ConnectValues {
                begun: now.begun.saturating_sub(before.begun),
                latency: latencies(&now.latency, &before.latency),
                failures: [0; ConnectFailure::COUNT],
            };
            let pairs = now.failures.iter().zip(before.failures);
            for (moved, (now, before)) in change.failures.iter_mut().zip(pairs) {
                *moved = now.saturating_sub(before);
            }
            (labels, change)
        })
    }

    /// How long connections of a listener waited for `accept()` in the window.
    #[must_use]
    pub fn accepts(&self, labels: &ListenerLabels) -> AcceptValues {
        let key = (labels.owner.netns, labels.address, labels.port);
        let now = self.after.accepts.get(&key).copied().unwrap_or_default();
        let before = self.before.accepts.get(&key).copied().unwrap_or_default();
        AcceptValues {
            established: now.established.saturating_sub(before.established),
            accepted: now.accepted.saturating_sub(before.accepted),
            refused_in_time_wait: now
                .refused_in_time_wait
                .saturating_sub(before.refused_in_time_wait),
            latency: latencies(&now.latency, &before.latency),
        }
    }

    /// Resets of the window.
    pub fn resets(&self) -> impl Iterator<Item = (&ResetLabels, u64)> {
        self.after.resets.iter().map(|(labels, now)| {
            let before = self.before.resets.get(labels).copied().unwrap_or(0);
            (labels, now.saturating_sub(before))
        })
    }

    /// Retransmissions of the window.
    pub fn retransmits(&self) -> impl Iterator<Item = (&RetransmitLabels, RetransmitValues)> {
        self.after.retransmits.iter().map(|(labels, now)| {
            let mut change = *now;
            if let Some(before) = self.before.retransmits.get(labels) {
                for (moved, before) in change.segments.iter_mut().zip(before.segments) {
                    *moved = moved.saturating_sub(before);
                }
                change.failures = change.failures.saturating_sub(before.failures);
            }
            (labels, change)
        })
    }
}

fn latencies(now: &Latencies, before: &Latencies) -> Latencies {
    let mut change = *now;
    for (moved, before) in change.buckets.iter_mut().zip(before.buckets) {
        *moved = moved.saturating_sub(before);
    }
    change.sum_ns = change.sum_ns.saturating_sub(before.sum_ns);
    change
}

/// How many latencies were above `bound_ns`, which must be one of the histogram's bounds.
#[must_use]
pub(super) fn above(latencies: &Latencies, bound_ns: u64) -> u64 {
    let bounds = netobs_common::connection::LATENCY_BOUNDS_NS;
    let within = bounds
        .iter()
        .take_while(|bound| **bound <= bound_ns)
        .count();
    latencies.buckets.iter().skip(within).sum()
}
