//! What a diagnosis rests on.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use netobs_common::connection::{ConnectFailure, Latencies};
use serde::Serialize;

use super::{
    NotSeen, Observed,
    observed::Times,
    snapshot::{Lookups, Snapshot},
};
use crate::{
    audit::{
        report::Report,
        snapshot::{Machine, Namespace},
        value::Reading,
    },
    ledger::{
        accepts::AcceptValues,
        connects::{ConnectLabels, ConnectValues},
        listeners::ListenerLabels,
        owner::Owner,
        paths::PathTarget,
        resets::ResetLabels,
        retransmits::{RetransmitLabels, RetransmitValues},
        stories::Story,
    },
    path::{ErrorType, Measurement, Phase},
    probes::{Exactness, Signal},
    sys::{clock::ClockPair, netstat::Counter},
};

/// Stories that go with one finding.
const MOST_STORIES: usize = 3;

/// How full the connection tracking table of a network namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// `net.netfilter.nf_conntrack_count`.
    pub entries: u64,
    /// `net.netfilter.nf_conntrack_max`.
    pub most: u64,
}

/// What is known of a network namespace at the end of the window, besides its counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// `net.ipv4.ip_local_port_range`, both ends included.
    pub ports: Option<(u16, u16)>,
    /// `net.ipv4.tcp_tw_reuse`.
    pub reuse: Option<i64>,
    /// Sockets in TIME_WAIT.
    pub time_wait: Option<u64>,
    /// Its connection tracking table; `None` where nothing is tracked.
    pub conntrack: Option<Conntrack>,
}

impl Place {
    /// Of what the auditor has read of every namespace.
    #[must_use]
    pub fn all(machine: &Machine) -> BTreeMap<u32, Self> {
        let places = machine
            .selected()
            .map(|ns| (ns.inode, Self::of(machine, ns)));
        places.collect()
    }

    fn of(machine: &Machine, ns: &Namespace) -> Self {
        let own = |key: &str| {
            ns.settings
                .get(key)
                .map(Reading::numbers)
                .unwrap_or_default()
        };
        // The limit is the node's, the count the namespace's.
        let node = |key: &str| {
            let of = machine.host.settings.get(key).map(Reading::numbers);
            of.unwrap_or_default()
        };
        let unsigned = |numbers: &[i64]| numbers.first().and_then(|it| u64::try_from(*it).ok());
        const MOST: &str = "net.netfilter.nf_conntrack_max";
        let most = unsigned(own(MOST)).or_else(|| unsigned(node(MOST)));
        Self {
            ports: match own("net.ipv4.ip_local_port_range") {
                [low, high] => u16::try_from(*low).ok().zip(u16::try_from(*high).ok()),
                _ => None,
            },
            reuse: own("net.ipv4.tcp_tw_reuse").first().copied(),
            time_wait: ns.sockstat.map(|stat| stat.time_wait),
            conntrack: unsigned(own("net.netfilter.nf_conntrack_count"))
                .zip(most)
                .map(|(entries, most)| Conntrack { entries, most }),
        }
    }
}

/// Where evidence comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The kernel, while it was watched: everything is counted.
    #[default]
    Watched,
    /// Events that were recorded: what went wrong, not how much went well.
    Recorded,
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
    /// Where it comes from.
    pub source: Source,
    /// How long was looked.
    pub window: Duration,
    /// Events that were read; `None` when the kernel was watched.
    pub events: Option<u64>,
    /// Network namespaces that they are of.
    pub namespaces: usize,
    /// When the window ended, wall-clock ns since 1970; 0 when not known.
    pub until_ns: u64,
    /// The books at the beginning.
    pub before: Snapshot,
    /// The books at the end.
    pub after: Snapshot,
    /// What events told.
    pub observed: Observed,
    /// What became of single connections, the one with most to explain first.
    pub stories: Vec<Story>,
    /// What the auditor says at the end, over the same window.
    pub audit: Option<Report>,
    /// Each network namespace at the end.
    pub places: BTreeMap<u32, Place>,
    /// The paths that were measured.
    pub paths: Vec<PathSeen>,
    /// What could not be had, besides what the signals say.
    pub not_seen: Vec<NotSeen>,
    /// From the times of events to those of a clock.
    pub clock: Option<ClockPair>,
    /// The zone in which times are told; UTC without one.
    pub zone: Option<TimeZone>,
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

    /// Whether what went well was counted too.
    #[must_use]
    pub fn knows_totals(&self) -> bool {
        self.source == Source::Watched
    }

    /// Whether connections that `accept()` takes were seen.
    #[must_use]
    pub fn sees_accepts(&self) -> bool {
        !self.after.signals.iter().any(|info| {
            info.signal == Signal::AcceptLatency && info.exactness == Exactness::Unavailable
        })
    }

    /// The time of day of an event, to the tenth of a second.
    #[must_use]
    pub fn time(&self, ktime_ns: u64) -> Option<String> {
        let wall_ns = self.clock?.wall_ns(ktime_ns)?;
        let zone = self.zone.clone().unwrap_or(TimeZone::UTC);
        let time = Timestamp::from_nanosecond(wall_ns.into())
            .ok()?
            .to_zoned(zone);
        let days = self.window > Duration::from_secs(20 * 3600);
        let form = if days {
            "%m-%d %H:%M:%S%.1f"
        } else {
            "%H:%M:%S%.1f"
        };
        Some(time.strftime(form).to_string())
    }

    /// From when to when, and the worst tenth of a second, in words; empty when there is nothing to
    /// say.
    #[must_use]
    pub(super) fn when(&self, times: &Times, thing: &str) -> Option<String> {
        let (first, last) = (self.time(times.first_ns())?, self.time(times.last_ns())?);
        let (worst_ns, count) = times.worst();
        let mut text = if first == last {
            format!("at {first}")
        } else {
            format!("from {first} to {last}")
        };
        if count > 1
            && let Some(worst) = self.time(worst_ns)
        {
            text.push_str(&format!(
                "; at most {count} {thing} within 100 ms, at {worst}"
            ));
        }
        Some(text)
    }

    /// Up to three stories of connections, each with the time at which it began.
    #[must_use]
    pub(super) fn told(&self, wanted: impl Fn(&Story) -> bool) -> Vec<String> {
        let tell = |story: &Story| match self.time(story.began_ns) {
            Some(time) => format!("{time} {}", story.text),
            None => story.text.clone(),
        };
        let wanted = self.stories.iter().filter(|story| wanted(story));
        wanted.take(MOST_STORIES).map(tell).collect()
    }

    /// Name lookups of the window.
    pub fn lookups(&self) -> impl Iterator<Item = (&Owner, Lookups)> {
        let after = self.after.lookups.iter().flatten();
        after.map(|(owner, now)| {
            let before = self.before.lookups.as_ref();
            let before = before.and_then(|before| before.get(owner).copied());
            (owner, now.since(&before.unwrap_or_default()))
        })
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

    /// Handshakes that completed at a server's port in the window.
    #[must_use]
    pub fn established(&self, netns: u32, port: u16) -> u64 {
        let here =
            |((of, _, at), _): &(&(u32, IpAddr, u16), &AcceptValues)| *of == netns && *at == port;
        let after = self.after.accepts.iter().filter(here);
        after
            .map(|(key, now)| {
                let before = self.before.accepts.get(key);
                now.established
                    .saturating_sub(before.map_or(0, |before| before.established))
            })
            .sum()
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
    if bound_ns == u64::MAX {
        return 0;
    }
    latencies.buckets.iter().skip(within).sum()
}

/// How many latencies were above one bound and not above the other, both bounds of the histogram.
#[must_use]
pub(super) fn between(latencies: &Latencies, from_ns: u64, to_ns: u64) -> u64 {
    above(latencies, from_ns).saturating_sub(above(latencies, to_ns))
}
