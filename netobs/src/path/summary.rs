//! Many measurements of one target in a few numbers.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use super::{
    cause::ErrorType,
    outcome::{Measurement, Phase, SCHEMA_VERSION, seconds},
    plan::MAX_TIMEOUT,
};

/// Times are kept in microseconds to three digits: off by less than a thousandth.
const DIGITS: u8 = 3;

/// The times of one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PhaseSummary {
    /// Measurements that reached the phase.
    pub count: u64,
    #[serde(rename = "min_seconds", serialize_with = "seconds")]
    pub min: Duration,
    #[serde(rename = "p50_seconds", serialize_with = "seconds")]
    pub p50: Duration,
    #[serde(rename = "p90_seconds", serialize_with = "seconds")]
    pub p90: Duration,
    #[serde(rename = "p95_seconds", serialize_with = "seconds")]
    pub p95: Duration,
    #[serde(rename = "p99_seconds", serialize_with = "seconds")]
    pub p99: Duration,
    #[serde(rename = "max_seconds", serialize_with = "seconds")]
    pub max: Duration,
}

/// All measurements of a target so far.
#[derive(Debug, Serialize)]
pub struct Summary {
    schema_version: u32,
    /// The target.
    pub target: String,
    /// The family asked for.
    pub ip_version: &'static str,
    /// Measurements.
    pub measurements: u64,
    /// Those that were as expected.
    pub successes: u64,
    /// How often each cause was met, by phase.
    #[serde(serialize_with = "flat")]
    pub failures: BTreeMap<(Phase, ErrorType), u64>,
    #[serde(rename = "phases", serialize_with = "summed")]
    times: Times,
}

/// One histogram a phase, and one of the totals last.
#[derive(Debug)]
struct Times([Histogram<u64>; 6]);

fn flat<S: Serializer>(
    failures: &BTreeMap<(Phase, ErrorType), u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Row {
        phase: Phase,
        error_type: ErrorType,
        count: u64,
    }
    serializer.collect_seq(failures.iter().map(|((phase, error_type), count)| Row {
        phase: *phase,
        error_type: *error_type,
        count: *count,
    }))
}

fn summed<S: Serializer>(times: &Times, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(times.rows())
}

impl Times {
    fn rows(&self) -> impl Iterator<Item = (&'static str, Option<PhaseSummary>)> + '_ {
        let names = Phase::ALL.map(Phase::name).into_iter().chain(["total"]);
        names.zip(self.0.iter().map(summary))
    }
}

fn summary(times: &Histogram<u64>) -> Option<PhaseSummary> {
    let at = |quantile| Duration::from_micros(times.value_at_quantile(quantile));
    (!times.is_empty()).then(|| PhaseSummary {
        count: times.len(),
        min: Duration::from_micros(times.min()),
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        max: Duration::from_micros(times.max()),
    })
}

impl Summary {
    /// One without measurements. `None` cannot happen: the bounds of its histograms are fixed, and
    /// a test holds them.
    #[must_use]
    pub fn new(target: &str, ip_version: &'static str) -> Option<Self> {
        let highest = u64::try_from(MAX_TIMEOUT.as_micros()).ok()?;
        let one = Histogram::new_with_bounds(1, highest, DIGITS).ok()?;
        Some(Self {
            schema_version: SCHEMA_VERSION,
            target: target.to_owned(),
            ip_version,
            measurements: 0,
            successes: 0,
            failures: BTreeMap::new(),
            times: Times(std::array::from_fn(|_| one.clone())),
        })
    }

    /// Takes in one measurement. A failed phase counts with the time until it failed.
    pub fn add(&mut self, measurement: &Measurement) {
        self.measurements += 1;
        self.successes += u64::from(measurement.success);
        if let Some(failure) = &measurement.failure {
            let key = (failure.phase, failure.error_type);
            *self.failures.entry(key).or_default() += 1;
        }
        let phases = Phase::ALL.map(|phase| measurement.phases.get(phase));
        let times = phases.into_iter().chain([Some(measurement.phases.total)]);
        for (histogram, time) in self.times.0.iter_mut().zip(times) {
            if let Some(time) = time {
                histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
            }
        }
    }

    /// The phases that were reached, in order, and the total.
    pub fn phases(&self) -> impl Iterator<Item = (&'static str, PhaseSummary)> + '_ {
        let rows = self.times.rows();
        rows.filter_map(|(name, summary)| Some((name, summary?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut summary = Summary::new("x", "any").unwrap();
        for value in 1..=1000 {
            summary.times.0[5].record(value * 1000).unwrap();
        }
        let (name, total) = summary.phases().next().unwrap();
        assert_eq!(name, "total");
        let near = |value: Duration, millis: u64| {
            let wanted = Duration::from_millis(millis).as_secs_f64();
            (value.as_secs_f64() - wanted).abs() <= wanted / 900.0
        };
        assert!(near(total.p50, 500) && near(total.p99, 990) && near(total.max, 1000));
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["phases"]["total"]["count"], 1000);
        assert!(json["phases"]["dns"].is_null());
    }
}
