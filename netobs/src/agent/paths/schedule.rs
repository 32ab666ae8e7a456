//! When a target is measured next: at its interval, and less and less often while it fails.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// Failures in a row from which a target is asked less often. The first are not slowed down: an
/// alert wants to see that they last.
const OPEN_AFTER: u32 = 3;
/// How much longer than the interval a dead target waits at most, and at most in all.
const MOST_INTERVALS: u32 = 16;
const LONGEST: Duration = Duration::from_secs(300);

/// The rhythm of one target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    interval: Duration,
    jitter: Duration,
    failures: u32,
}

impl Pace {
    pub(super) fn new(interval: Duration, jitter: Duration) -> Self {
        Self {
            interval,
            jitter,
            failures: 0,
        }
    }

    /// Notes how a measurement went.
    pub(super) fn note(&mut self, success: bool) {
        self.failures = if success {
            0
        } else {
            self.failures.saturating_add(1)
        };
    }

    /// Whether the last measurement failed: it has to share its slot with others like it.
    pub(super) fn is_suspect(&self) -> bool {
        self.failures > 0
    }

    /// Whether the circuit is open: the target is only tried now and then.
    pub(super) fn is_open(&self) -> bool {
        self.failures >= OPEN_AFTER
    }

    /// How long after the start of the others the first measurement begins: spread over one
    /// interval.
    pub(super) fn first(&self, chance: f64) -> Duration {
        self.interval.mul_f64(chance.clamp(0.0, 1.0))
    }

    /// From the beginning of the last measurement to that of the next.
    pub(super) fn wait(&self, chance: f64) -> Duration {
        let doublings = self.failures.saturating_sub(OPEN_AFTER - 1).min(16);
        let grown = self.interval.saturating_mul(1 << doublings);
        let most = self.interval.saturating_mul(MOST_INTERVALS).min(LONGEST);
        grown.min(most.max(self.interval)) + self.jitter.mul_f64(chance.clamp(0.0, 1.0))
    }

    /// Intervals that went by between two beginnings without a measurement.
    pub(super) fn skipped(&self, between: Duration) -> u64 {
        let between = between.saturating_sub(self.jitter).as_millis();
        let intervals = between / self.interval.as_millis().max(1);
        u64::try_from(intervals.saturating_sub(1)).unwrap_or(u64::MAX)
    }
}

/// A number from 0 to 1, another each time. Not for secrets: it only spreads targets out.
pub(super) fn chance() -> f64 {
    let number = RandomState::new().build_hasher().finish() >> 32;
    f64::from(u32::try_from(number).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_dead_target_is_asked_less_and_less_and_at_once_again_when_it_lives() {
        let mut pace = Pace::new(5 * SECOND, SECOND);
        let mut waits = Vec::new();
        for _ in 0..10 {
            pace.note(false);
            waits.push(pace.wait(0.0).as_secs());
        }
        assert_eq!(waits, [5, 5, 10, 20, 40, 80, 80, 80, 80, 80]);
        assert!(pace.is_open());
        assert_eq!(pace.wait(1.0), 81 * SECOND);
        pace.note(true);
        assert!(!pace.is_open() && !pace.is_suspect());
        assert_eq!(pace.wait(0.0), 5 * SECOND);
    }

    #[test]
    fn long_intervals_are_never_shortened() {
        let mut pace = Pace::new(3600 * SECOND, Duration::ZERO);
        (0..50).for_each(|_| pace.note(false));
        assert_eq!(pace.wait(0.5), 3600 * SECOND);
    }

    #[test]
    fn intervals_that_went_by_are_counted() {
        let pace = Pace::new(5 * SECOND, SECOND);
        let table = [(0, 0), (5, 0), (6, 0), (10, 0), (11, 1), (21, 3)];
        for (seconds, skipped) in table {
            assert_eq!(pace.skipped(seconds * SECOND), skipped, "{seconds}");
        }
    }

    #[test]
    fn chances_differ() {
        let all: Vec<f64> = (0..100).map(|_| chance()).collect();
        assert!(all.iter().all(|it| (0.0..=1.0).contains(it)));
        assert!(all.iter().any(|it| *it < 0.4) && all.iter().any(|it| *it > 0.6));
    }
}
