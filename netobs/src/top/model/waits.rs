//! Quantiles of what waited lately.

use std::collections::VecDeque;

use netobs_common::connection::{LATENCY_BOUNDS_NS, Latencies};
use serde::Serialize;

/// How far back quantiles reach: so many marks, each so many seconds after the one before.
const MARKS: usize = 6;
const MARK_SECONDS: u64 = 10;

/// The waits of the last minute.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    /// The histogram at earlier seconds, oldest first.
    marks: VecDeque<(u64, Latencies)>,
    now: Latencies,
}

/// A wait, as well as a histogram tells it.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Not longer than so many seconds.
    AtMostSeconds(f64),
    /// Longer than the greatest bound, so many seconds.
    MoreThanSeconds(f64),
}

impl Waits {
    /// Those that come after this.
    #[must_use]
    pub fn from(now: Latencies, second: u64) -> Self {
        Self {
            marks: VecDeque::from([(second, now)]),
            now,
        }
    }

    /// Takes in the histogram as it is at a second.
    pub fn take(&mut self, now: Latencies, second: u64) {
        let fell = now.count() < self.now.count();
        if fell {
            self.marks.clear();
        }
        let last = self.marks.back().map(|(second, _)| *second);
        if last.is_none_or(|last| second >= last + MARK_SECONDS) {
            // Of a histogram that begins anew, all is new.
            let mark = if fell { Latencies::default() } else { self.now };
            self.marks.push_back((second, mark));
            if self.marks.len() > MARKS {
                self.marks.pop_front();
            }
        }
        self.now = now;
    }

    /// What `share` of the waits (0 to 1) were not longer than, in ns; `u64::MAX` above the greatest
    /// bound; `None` when there were none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let zero = Latencies::default();
        let before = self.marks.front().map_or(&zero, |(_, mark)| mark);
        let pairs = self.now.buckets.iter().zip(before.buckets);
        let moved: Vec<u64> = pairs
            .map(|(now, before)| now.saturating_sub(before))
            .collect();
        let count: u64 = moved.iter().sum();
        if count == 0 {
            return None;
        }
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among counts far below 2^53"
        )]
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count);
        let mut sum = 0;
        let place = moved.iter().position(|bucket| {
            sum += bucket;
            sum >= rank
        })?;
        Some(LATENCY_BOUNDS_NS.get(place).copied().unwrap_or(u64::MAX))
    }
}

impl Wait {
    /// Of a quantile as [`Waits::quantile`] gives it.
    #[must_use]
    pub fn of(ns: u64) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a bound, far below 2^53 ns")]
        let seconds = |ns: u64| ns as f64 / 1e9;
        match LATENCY_BOUNDS_NS.last() {
            Some(most) if ns > *most => Self::MoreThanSeconds(seconds(*most)),
            _ => Self::AtMostSeconds(seconds(ns)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(buckets: &[(usize, u64)]) -> Latencies {
        let mut latencies = Latencies::default();
        for (place, count) in buckets {
            latencies.buckets[*place] = *count;
        }
        latencies
    }

    #[test]
    fn quantiles_are_of_the_last_minute() {
        let mut waits = Waits::from(with(&[(0, 1000)]), 0);
        assert_eq!(waits.quantile(0.5), None);
        waits.take(with(&[(0, 1000), (3, 98), (8, 2)]), 1);
        assert_eq!(waits.quantile(0.5), Some(5_000_000));
        assert_eq!(waits.quantile(0.98), Some(5_000_000));
        assert_eq!(waits.quantile(0.99), Some(250_000_000));
        for second in 2..90 {
            waits.take(with(&[(0, 1000), (3, 98), (8, 2)]), second);
        }
        assert_eq!(waits.quantile(0.99), None, "long ago");
        assert!(waits.marks.len() <= MARKS);
        waits.take(with(&[(16, 1)]), 90);
        assert_eq!(waits.quantile(0.5), Some(u64::MAX), "begun anew");
    }

    #[test]
    fn json_says_which_bound_it_is() {
        let json = |ns| serde_json::to_string(&Wait::of(ns)).unwrap();
        assert_eq!(json(2_500_000), r#"{"at_most_seconds":0.0025}"#);
        assert_eq!(json(u64::MAX), r#"{"more_than_seconds":31.5}"#);
    }
}
