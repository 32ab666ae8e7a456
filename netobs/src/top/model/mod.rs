//! Rates, histories and quantiles, made of one reading after the other.

mod course;
mod rows;
mod waits;

use std::{collections::BTreeMap, time::Duration};

use netobs_common::connection::Latencies;

pub use self::{
    course::Course,
    rows::{ConnectRow, ListenerRow, ResetRow, RetransmitRow, SchemaVersion, Tables, Total},
    waits::{Wait, Waits},
};
use super::{Connects, Listener, MOST_ROWS, Reading, Reset, Sockets};

/// Seconds of history.
pub const SECONDS: usize = 120;
/// Seconds that a rate is taken over.
pub const RATE_SECONDS: usize = 10;

/// What is remembered between two readings.
#[derive(Debug, Default)]
pub struct Model {
    /// The first reading's time, and the whole seconds since then at the latest.
    begun: Option<Duration>,
    second: u64,
    listeners: BTreeMap<Listener, Remembered<2>>,
    retransmits: BTreeMap<Sockets, Remembered<1>>,
    connects: BTreeMap<Connects, Remembered<2>>,
    resets: BTreeMap<Reset, Remembered<1>>,
    totals: [Grown; 4],
}

/// What is remembered of one row.
#[derive(Debug)]
struct Remembered<const COUNTERS: usize> {
    courses: [Course; COUNTERS],
    waits: Waits,
}

/// A sum over rows, of which some go: what they had stays in it.
#[derive(Debug, Default)]
struct Grown {
    count: u64,
    course: Course,
}

/// When a reading was taken, as far as rows are concerned.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// Nothing is known of before.
    first: bool,
    second: u64,
    /// Whole seconds since the reading before.
    passed: u64,
}

impl<const COUNTERS: usize> Remembered<COUNTERS> {
    /// A row that was not in the reading before: all that it has is new, unless that reading is the
    /// first.
    fn new(counts: [u64; COUNTERS], latency: Latencies, moment: Moment) -> Self {
        let (counts, latency) = if moment.first {
            (counts, latency)
        } else {
            ([0; COUNTERS], Latencies::default())
        };
        Self {
            courses: counts.map(Course::from),
            waits: Waits::from(latency, moment.second),
        }
    }

    /// Takes in the counters, and returns by how much the last grew.
    fn take(&mut self, counts: [u64; COUNTERS], latency: Latencies, moment: Moment) -> u64 {
        let mut grown = 0;
        for (course, count) in self.courses.iter_mut().zip(counts) {
            grown = course.take(count, moment.passed);
        }
        self.waits.take(latency, moment.second);
        grown
    }
}

/// Takes in the counters of a sheet and makes its rows; forgets what is in it no more. The last of
/// the counters goes into the total.
fn follow<K: Ord + Clone, V, R, const COUNTERS: usize>(
    remembered: &mut BTreeMap<K, Remembered<COUNTERS>>,
    total: &mut Grown,
    reading: &BTreeMap<K, V>,
    moment: Moment,
    counts: impl Fn(&V) -> ([u64; COUNTERS], Latencies),
    row: impl Fn(&K, &V, &Remembered<COUNTERS>) -> R,
) -> Vec<R> {
    remembered.retain(|key, _| reading.contains_key(key));
    let rows = reading.iter().take(MOST_ROWS).map(|(key, value)| {
        let (counts, latency) = counts(value);
        let entry = remembered
            .entry(key.clone())
            .or_insert_with(|| Remembered::new(counts, latency, moment));
        let grown = entry.take(counts, latency, moment);
        total.count += if moment.first {
            counts.last().copied().unwrap_or(0)
        } else {
            grown
        };
        row(key, value, entry)
    });
    let rows = rows.collect();
    if moment.first {
        total.course = Course::from(total.count);
    }
    total.course.take(total.count, moment.passed);
    rows
}

impl Model {
    /// Takes in a reading, and makes what is shown of it.
    pub fn take(&mut self, reading: &Reading) -> Tables {
        let moment = self.moment(reading.at);
        let [drops, retransmitted, connects_failed, reset] = &mut self.totals;
        let listeners = follow(
            &mut self.listeners,
            drops,
            &reading.listeners,
            moment,
            |value| ([value.accepts, value.drops], value.latency),
            listener_row,
        );
        let retransmits = follow(
            &mut self.retransmits,
            retransmitted,
            &reading.retransmits,
            moment,
            |value| ([value.segments.iter().sum()], Latencies::default()),
            |sockets,
             value,
             Remembered {
                 courses: [segments],
                 ..
             }| RetransmitRow {
                sockets: sockets.clone(),
                segments: value.segments.iter().sum(),
                segments_per_second: segments.rate(),
                by_type: value.segments,
                failures: value.failures,
                trend: segments.trend(),
            },
        );
        let connects = follow(
            &mut self.connects,
            connects_failed,
            &reading.connects,
            moment,
            |value| {
                (
                    [value.latency.count(), value.failures.iter().sum()],
                    value.latency,
                )
            },
            |connects,
             value,
             Remembered {
                 courses: [completed, failed],
                 waits,
             }| ConnectRow {
                connects: connects.clone(),
                waiting: value.waiting,
                completed: value.latency.count(),
                completed_per_second: completed.rate(),
                failed: value.failures.iter().sum(),
                failed_per_second: failed.rate(),
                failures: value.failures,
                latency_p50: waits.quantile(0.5),
                latency_p99: waits.quantile(0.99),
                trend: failed.trend(),
            },
        );
        let resets = follow(
            &mut self.resets,
            reset,
            &reading.resets,
            moment,
            |value| ([*value], Latencies::default()),
            |reset,
             value,
             Remembered {
                 courses: [resets], ..
             }| ResetRow {
                reset: reset.clone(),
                resets: *value,
                resets_per_second: resets.rate(),
                trend: resets.trend(),
            },
        );
        let [drops, retransmitted, connects_failed, reset] =
            self.totals.each_ref().map(Grown::total);
        Tables {
            schema_version: SchemaVersion,
            watched_seconds: moment.second,
            namespaces: reading.namespaces,
            rows_left_out: reading.beyond(),
            drops,
            retransmitted,
            connects_failed,
            reset,
            listeners,
            retransmits,
            connects,
            resets,
            diagnosis: reading.diagnosis.clone(),
            earlier_findings: reading.earlier.clone(),
            lost: reading.lost.clone(),
        }
    }

    fn moment(&mut self, at: Duration) -> Moment {
        let first = self.begun.is_none();
        let begun = *self.begun.get_or_insert(at);
        let second = at.saturating_sub(begun).as_secs().max(self.second);
        let passed = second - self.second;
        self.second = second;
        Moment {
            first,
            second,
            passed,
        }
    }
}

impl Grown {
    fn total(&self) -> Total {
        Total {
            count: self.count,
            per_second: self.course.rate(),
            trend: self.course.trend(),
        }
    }
}

fn listener_row(
    listener: &Listener,
    value: &super::Listening,
    Remembered {
        courses: [accepts, drops],
        waits,
    }: &Remembered<2>,
) -> ListenerRow {
    ListenerRow {
        listener: listener.clone(),
        sockets: value.sockets,
        queue_length: value.queue,
        queue_peak: value.peak.max(value.queue),
        queue_limit: value.limit,
        cut_by_somaxconn: value.cut,
        syn_queue_length: value.syn_queue,
        drops: value.drops,
        drops_per_second: drops.rate(),
        drops_by: value.drops_by.clone(),
        overflows: value.overflows,
        accepts: value.accepts,
        accepts_per_second: accepts.rate(),
        accept_latency_p50: waits.quantile(0.5),
        accept_latency_p99: waits.quantile(0.99),
        trend: drops.trend(),
    }
}

#[cfg(test)]
mod tests;
