//! The books at one moment.

use std::{collections::BTreeMap, net::IpAddr};

use netobs_common::{dns::DnsCounts, ledger::ListenCounts};

use crate::{
    ledger::{
        accepts::AcceptValues,
        connects::{ConnectLabels, ConnectValues},
        dns::{Answered, DnsBook},
        listeners::{Binding, ListenerLabels, ListenerValues, address},
        owner::Owner,
        resets::ResetLabels,
        retransmits::{RetransmitLabels, RetransmitValues},
    },
    metrics::View,
    probes::SignalInfo,
    sys::netstat::Counters,
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

/// Lookups that took this long and longer, in seconds, are felt: a cold name takes a recursive server
/// some tenths of a second.
const SLOW_LOOKUP: f64 = 0.5;
/// Response codes that say that the server could not or would not tell: SERVFAIL and REFUSED.
const FAILURES: [u32; 2] = [2, 5];
/// The name does not exist.
const NO_NAME: u32 = 3;

/// Name lookups of one owner.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lookups {
    /// Those that were answered in time.
    pub answered: u64,
    /// Of those, slower than half a second.
    pub slow: u64,
    /// Of those, with SERVFAIL or REFUSED.
    pub failed: u64,
    /// Of those, that there is no such name.
    pub no_name: u64,
    /// Time that all answers took, seconds.
    pub seconds: f64,
    /// Everything else.
    pub counts: DnsCounts,
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
    /// Name lookups; `None` where they are not watched.
    pub lookups: Option<BTreeMap<Owner, Lookups>>,
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
            lookups: view.dns.map(lookups),
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

fn lookups(book: &DnsBook) -> BTreeMap<Owner, Lookups> {
    let mut all: BTreeMap<Owner, Lookups> = BTreeMap::new();
    for (labels, Answered(latencies)) in book.answers().iter() {
        let Some(labels) = labels else { continue };
        let sum = all.entry(labels.owner).or_default();
        let count = latencies.count();
        sum.answered += count;
        sum.seconds += latencies.sum();
        sum.failed += if FAILURES.contains(&labels.response) {
            count
        } else {
            0
        };
        sum.no_name += if labels.response == NO_NAME { count } else { 0 };
        let buckets = latencies.buckets();
        sum.slow += buckets
            .filter(|(bound, _)| *bound > SLOW_LOOKUP)
            .map(|(_, count)| count)
            .sum::<u64>();
    }
    for (owner, counts) in book.counts().iter() {
        let Some(owner) = owner else { continue };
        all.entry(*owner).or_default().counts = *counts;
    }
    all
}

impl Lookups {
    /// What came since.
    #[must_use]
    pub(super) fn since(&self, before: &Self) -> Self {
        let (now, then) = (&self.counts, &before.counts);
        Self {
            answered: self.answered.saturating_sub(before.answered),
            slow: self.slow.saturating_sub(before.slow),
            failed: self.failed.saturating_sub(before.failed),
            no_name: self.no_name.saturating_sub(before.no_name),
            seconds: (self.seconds - before.seconds).max(0.0),
            counts: DnsCounts {
                queries: now.queries.saturating_sub(then.queries),
                repeats: now.repeats.saturating_sub(then.repeats),
                unanswered: now.unanswered.saturating_sub(then.unanswered),
                late: now.late.saturating_sub(then.late),
                truncated: now.truncated.saturating_sub(then.truncated),
                strays: now.strays.saturating_sub(then.strays),
                malformed: now.malformed.saturating_sub(then.malformed),
            },
        }
    }

    /// Takes in one lookup that ended.
    pub(super) fn add(&mut self, response: Option<u32>, seconds: f64) {
        let Some(response) = response else {
            self.counts.unanswered += 1;
            return;
        };
        self.answered += 1;
        self.seconds += seconds;
        self.slow += u64::from(seconds > SLOW_LOOKUP);
        self.failed += u64::from(FAILURES.contains(&response));
        self.no_name += u64::from(response == NO_NAME);
    }
}
