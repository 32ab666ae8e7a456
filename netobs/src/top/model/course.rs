//! How a counter went: by seconds, for two minutes.

use std::collections::VecDeque;

use super::{RATE_SECONDS, SECONDS};

/// The course of one counter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// By how much it grew in each second, the latest last; at most [`SECONDS`].
    slots: VecDeque<u32>,
    last: u64,
}

impl Course {
    /// Of a counter that stands at `last` now.
    #[must_use]
    pub fn from(last: u64) -> Self {
        Self {
            slots: VecDeque::new(),
            last,
        }
    }

    /// Takes in its value now, `seconds` whole ones after the one before. What it grew by is spread
    /// over them: when it was is not known. A counter that fell began anew.
    ///
    /// Returns by how much it grew.
    pub fn take(&mut self, now: u64, seconds: u64) -> u64 {
        let grown = now.checked_sub(self.last).unwrap_or(now);
        self.last = now;
        self.add(grown, seconds);
        grown
    }

    fn add(&mut self, grown: u64, seconds: u64) {
        if seconds == 0 && !self.slots.is_empty() {
            if let Some(latest) = self.slots.back_mut() {
                *latest = latest.saturating_add(clamp(grown));
            }
            return;
        }
        let seconds = seconds.max(1);
        let share = grown / seconds;
        let rest = grown % seconds;
        let shown = usize::try_from(seconds).unwrap_or(SECONDS).min(SECONDS);
        let over = (self.slots.len() + shown).saturating_sub(SECONDS);
        self.slots.drain(..over.min(self.slots.len()));
        self.slots
            .extend(std::iter::repeat_n(clamp(share), shown - 1));
        self.slots.push_back(clamp(share + rest));
    }

    /// By how much it grew a second, over the last [`RATE_SECONDS`] or as long as it is known.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let seconds = self.slots.len().clamp(1, RATE_SECONDS);
        let latest = self.slots.iter().rev().take(seconds);
        let sum: u64 = latest.map(|grown| u64::from(*grown)).sum();
        #[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
        let rate = sum as f64 / seconds as f64;
        rate
    }

    /// By how much it grew in each second, the latest last.
    #[must_use]
    pub fn trend(&self) -> Vec<u32> {
        self.slots.iter().copied().collect()
    }
}

fn clamp(grown: u64) -> u32 {
    u32::try_from(grown).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn growth_is_kept_by_seconds() {
        let mut course = Course::from(100);
        course.take(100, 1);
        course.take(103, 1);
        course.take(104, 0);
        assert_eq!(course.trend(), [0, 4]);
        // Three seconds without a reading: what came in them is spread.
        course.take(111, 3);
        assert_eq!(course.trend(), [0, 4, 2, 2, 3]);
        assert!((course.rate() - 11.0 / 5.0).abs() < 1e-9);
        // An agent that was started again counts from zero.
        course.take(5, 1);
        assert_eq!(course.trend(), [0, 4, 2, 2, 3, 5]);
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_loses_nothing(steps in prop::collection::vec((0_u64..1000, 0_u64..400), 1..60)) {
            let mut course = Course::from(0);
            let mut now = 0;
            let mut passed = 0;
            for (grown, seconds) in steps {
                now += grown;
                passed += seconds.max(1);
                course.take(now, seconds);
                prop_assert!(course.trend().len() <= SECONDS);
            }
            let sum: u64 = course.trend().iter().map(|grown| u64::from(*grown)).sum();
            prop_assert!(sum <= now);
            prop_assert!(passed > SECONDS as u64 || sum == now);
        }
    }
}
