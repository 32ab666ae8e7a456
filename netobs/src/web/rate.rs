//! A token bucket.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lets one through per interval on average, and `burst` at once after a pause.
#[derive(Debug)]
pub(super) struct Bucket {
    interval: Duration,
    /// How far the next arrival may lie ahead of now.
    tolerance: Duration,
    /// When the bucket will be full again.
    full_at: Mutex<Option<Instant>>,
}

impl Bucket {
    pub(super) fn new(interval: Duration, burst: u32) -> Self {
        Self {
            interval,
            tolerance: interval.saturating_mul(burst.saturating_sub(1)),
            full_at: Mutex::new(None),
        }
    }

    /// Takes a token if there is one.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let at = full_at.map_or(now, |at| at.max(now));
        if at.saturating_duration_since(now) > self.tolerance {
            return false;
        }
        // A time beyond what the clock can tell means: never again.
        let Some(next) = at.checked_add(self.interval) else {
            return false;
        };
        *full_at = Some(next);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_per_interval() {
        let bucket = Bucket::new(Duration::from_secs(1), 3);
        let start = Instant::now();
        let passed = |at: u64| bucket.allows(start + Duration::from_millis(at));
        assert_eq!([0, 0, 0, 0].map(passed), [true, true, true, false]);
        assert_eq!([999, 1000, 1000].map(passed), [false, true, false]);
        assert_eq!(
            [9000, 9000, 9000, 9000].map(passed),
            [true, true, true, false]
        );
    }
}
