//! What the path probes found: counts and times of each target, and its last measurement.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::histogram::Histogram;
use crate::path::{ErrorType, Measurement, Phase, Slow};

/// Seconds. A lost SYN is a little above 1, a second one above 3, a dead name server above 5.
const BOUNDS: &[f64; 10] = &[0.002, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 5.0, 10.0];

/// Times by upper bound.
pub type Times = Histogram<10>;

/// One target.
#[derive(Debug)]
pub struct PathTarget {
    phases: [Times; 5],
    total: Times,
    failures: BTreeMap<(Phase, ErrorType), u64>,
    /// Intervals in which it was not measured.
    pub skipped: u64,
    /// When the first certificate of the chain ends, in seconds since 1970; that of the latest
    /// measurement that was shown a chain.
    pub certificate_expiry: Option<u64>,
    /// Measurements so far.
    pub measurements: u64,
    /// From when on a phase is slow.
    pub slow: Slow,
    /// Whether it failed so often that it is measured less often.
    pub open: bool,
    /// The latest measurement, and when it ended.
    pub last: Option<(Measurement, Instant)>,
    /// The latest that failed or was slow.
    pub trouble: Option<Measurement>,
    /// Measurements that were as expected, but slow.
    pub slow_ones: u64,
    gone: Option<Instant>,
}

impl PathTarget {
    fn new(slow: Slow) -> Self {
        Self {
            phases: std::array::from_fn(|_| Histogram::new(BOUNDS)),
            total: Histogram::new(BOUNDS),
            failures: BTreeMap::new(),
            skipped: 0,
            certificate_expiry: None,
            measurements: 0,
            slow,
            open: false,
            last: None,
            trouble: None,
            slow_ones: 0,
            gone: None,
        }
    }

    /// Times by phase, the total last; phases that no measurement reached are left out.
    pub fn times(&self) -> impl Iterator<Item = (&'static str, &Times)> {
        let names = Phase::ALL.map(Phase::name).into_iter();
        let phases = names.zip(&self.phases).chain([("total", &self.total)]);
        phases.filter(|(_, times)| times.count() > 0)
    }

    /// How often each cause was met.
    pub fn failures(&self) -> impl Iterator<Item = (Phase, ErrorType, u64)> + '_ {
        let failures = self.failures.iter();
        failures.map(|((phase, error_type), count)| (*phase, *error_type, *count))
    }
}

/// Every target, by name.
#[derive(Debug, Default)]
pub struct PathBook {
    targets: BTreeMap<String, PathTarget>,
}

impl PathBook {
    /// Takes these targets as the ones that are measured. Those known keep their counts; those that
    /// are no more stay until [`Self::forget`].
    pub fn set<'a>(&mut self, targets: impl IntoIterator<Item = (&'a str, Slow)>, now: Instant) {
        for target in self.targets.values_mut() {
            target.gone.get_or_insert(now);
        }
        for (name, slow) in targets {
            let target = self
                .targets
                .entry(name.to_owned())
                .or_insert_with(|| PathTarget::new(slow));
            target.gone = None;
            target.slow = slow;
        }
    }

    /// Forgets what has been gone for longer than `linger`.
    pub fn forget(&mut self, linger: Duration, now: Instant) {
        self.targets.retain(|_, target| {
            let gone = target.gone.map(|at| now.saturating_duration_since(at));
            gone.is_none_or(|gone| gone <= linger)
        });
    }

    /// Takes in a measurement; one of a target that is no more is dropped.
    pub fn record(&mut self, measurement: Measurement, skipped: u64, open: bool, now: Instant) {
        let Some(target) = self.targets.get_mut(&measurement.target) else {
            return;
        };
        target.measurements += 1;
        target.skipped = target.skipped.saturating_add(skipped);
        target.open = open;
        for (phase, times) in Phase::ALL.into_iter().zip(&mut target.phases) {
            if let Some(time) = measurement.phases.get(phase) {
                times.observe(time.as_secs_f64());
            }
        }
        target.total.observe(measurement.phases.total.as_secs_f64());
        if let Some(failure) = &measurement.failure {
            let key = (failure.phase, failure.error_type);
            *target.failures.entry(key).or_default() += 1;
        }
        let expiry = measurement.certificate_expiry();
        target.certificate_expiry = expiry.or(target.certificate_expiry);
        let slow = target.slow.is_exceeded(&measurement.phases);
        if slow && measurement.success {
            target.slow_ones += 1;
        }
        if slow || !measurement.success {
            target.trouble = Some(measurement.clone());
        }
        target.last = Some((measurement, now));
    }

    /// The targets by name; those that are no more as well, while their last numbers are kept.
    pub fn all(&self) -> impl Iterator<Item = (&str, &PathTarget)> {
        self.targets.iter().map(|(name, it)| (name.as_str(), it))
    }

    /// The targets that are measured.
    pub fn current(&self) -> impl Iterator<Item = (&str, &PathTarget)> {
        self.all().filter(|(_, target)| target.gone.is_none())
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&PathTarget> {
        self.targets.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{Failure, Plan};

    fn measured(name: &str, millis: u64, failure: Option<Failure>) -> Measurement {
        let mut measurement = Measurement::blank(&Plan::new("dns:a".parse().unwrap()), 1);
        name.clone_into(&mut measurement.target);
        measurement.phases.dns = Some(Duration::from_millis(millis));
        measurement.phases.total = Duration::from_millis(millis);
        measurement.success = failure.is_none();
        measurement.failure = failure;
        measurement
    }

    #[test]
    fn a_reload_keeps_the_counts_of_those_that_stay() {
        let mut book = PathBook::default();
        let start = Instant::now();
        let slow = Slow::default();
        book.set([("a", slow), ("b", slow)], start);
        book.record(measured("a", 3, None), 0, false, start);
        let failure = Failure {
            phase: Phase::Dns,
            error_type: ErrorType::TimedOut,
            message: String::new(),
        };
        book.record(measured("b", 5000, Some(failure)), 2, true, start);
        book.record(measured("stranger", 5, None), 0, false, start);

        book.set([("b", slow), ("c", slow)], start);
        assert_eq!(book.all().count(), 3);
        assert_eq!(
            book.current().map(|(name, _)| name).collect::<Vec<_>>(),
            ["b", "c"]
        );
        let b = book.get("b").unwrap();
        assert_eq!((b.skipped, b.measurements, b.open), (2, 1, true));
        assert_eq!(
            b.failures().collect::<Vec<_>>(),
            [(Phase::Dns, ErrorType::TimedOut, 1)]
        );
        assert_eq!(
            b.times().map(|(name, _)| name).collect::<Vec<_>>(),
            ["dns", "total"]
        );

        // What went wrong last is not forgotten when all is well again.
        book.record(measured("b", 1500, None), 0, false, start);
        book.record(measured("b", 3, None), 0, false, start);
        let b = book.get("b").unwrap();
        assert_eq!((b.measurements, b.slow_ones), (3, 1));
        let trouble = b.trouble.as_ref().unwrap();
        assert_eq!(trouble.phases.total, Duration::from_millis(1500));

        let linger = Duration::from_secs(120);
        book.forget(linger, start + linger);
        assert!(book.get("a").is_some());
        book.forget(linger, start + linger + Duration::from_secs(1));
        assert!(book.get("a").is_none());
        assert!(book.get("b").is_some());
    }
}
