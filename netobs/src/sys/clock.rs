//! From the kernel's monotonic time to wall-clock time.
//!
//! `bpf_ktime_get_ns` counts `CLOCK_MONOTONIC`, nanoseconds since boot without suspend. The
//! distance to wall-clock time changes (NTP, a set clock, suspend), so a pair of both is sampled
//! when it is needed: once per batch of events, not once per run.

use nix::time::{ClockId, clock_getres, clock_gettime};

/// An event cannot be later than the sample; this much is let pass, for samples that are kept for
/// a while.
const AHEAD_LIMIT_NS: u64 = 3_600 * 1_000_000_000;
/// Tries for a pair without an interruption between the two readings.
const TRIES: usize = 3;

/// Length of a jiffy, ns: the resolution of the clock that is read without asking the hardware
/// (kernel/time/posix-timers.c `posix_get_coarse_res`). 4 ms, the usual one, where it cannot be read.
#[must_use]
pub fn jiffy_ns() -> u32 {
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .ok()
        .and_then(|length| u32::try_from(length.tv_nsec()).ok())
        .filter(|length| *length > 0)
        .unwrap_or(4_000_000)
}

/// Monotonic and wall-clock time of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockPair {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub monotonic_ns: u64,
    /// `CLOCK_REALTIME`, in nanoseconds since 1970.
    pub wall_ns: u64,
}

impl ClockPair {
    /// Reads both clocks: wall-clock time between two monotonic readings, the closest of three.
    /// `None` when the clocks cannot be read, or stand before 1970.
    #[must_use]
    pub fn sample() -> Option<Self> {
        let attempt = || {
            let before = now_ns(ClockId::CLOCK_MONOTONIC)?;
            let wall_ns = now_ns(ClockId::CLOCK_REALTIME)?;
            let width = now_ns(ClockId::CLOCK_MONOTONIC)?.checked_sub(before)?;
            Some((
                width,
                Self {
                    monotonic_ns: before + width / 2,
                    wall_ns,
                },
            ))
        };
        let attempts = std::iter::repeat_with(attempt).take(TRIES).flatten();
        attempts
            .min_by_key(|(width, _)| *width)
            .map(|(_, pair)| pair)
    }

    /// The wall-clock time, in nanoseconds since 1970, of a moment of the kernel's monotonic time.
    /// `None` for what is no time of an event: zero, more than an hour after the sample, or before
    /// 1970.
    #[must_use]
    pub fn wall_ns(&self, ktime_ns: u64) -> Option<u64> {
        if ktime_ns == 0 {
            return None;
        }
        match self.monotonic_ns.checked_sub(ktime_ns) {
            Some(ago) => self.wall_ns.checked_sub(ago),
            None => {
                let ahead = ktime_ns.checked_sub(self.monotonic_ns)?;
                (ahead <= AHEAD_LIMIT_NS).then(|| self.wall_ns.checked_add(ahead))?
            }
        }
    }
}

/// `CLOCK_MONOTONIC`, in nanoseconds; `None` when it cannot be read.
#[must_use]
pub fn monotonic_ns() -> Option<u64> {
    now_ns(ClockId::CLOCK_MONOTONIC)
}

fn now_ns(clock: ClockId) -> Option<u64> {
    let time = clock_gettime(clock).ok()?;
    let seconds = u64::try_from(time.tv_sec()).ok()?;
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(u64::try_from(time.tv_nsec()).ok()?)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    const PAIR: ClockPair = ClockPair {
        monotonic_ns: 5_000,
        wall_ns: 1_000_000,
    };

    #[test]
    fn times_move_with_the_pair() {
        assert_eq!(PAIR.wall_ns(5_000), Some(1_000_000));
        assert_eq!(PAIR.wall_ns(4_000), Some(999_000));
        assert_eq!(PAIR.wall_ns(5_001), Some(1_000_001));
    }

    #[test]
    fn absurd_times_have_no_answer() {
        assert_eq!(PAIR.wall_ns(0), None);
        assert_eq!(PAIR.wall_ns(u64::MAX), None);
        assert_eq!(PAIR.wall_ns(5_001 + AHEAD_LIMIT_NS), None);
        assert_eq!(
            ClockPair {
                monotonic_ns: 9,
                wall_ns: 3
            }
            .wall_ns(1),
            None
        );
    }

    #[test]
    fn a_sample_is_now() {
        let epoch_ns = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_nanos()
        };
        let before = epoch_ns();
        let pair = ClockPair::sample().unwrap();
        let wall = u128::from(pair.wall_ns(pair.monotonic_ns).unwrap());
        assert!(before <= wall && wall <= epoch_ns());
    }

    proptest! {
        #[test]
        fn any_time_has_an_answer_or_none(monotonic_ns: u64, wall_ns: u64, ktime_ns: u64) {
            let _ = ClockPair { monotonic_ns, wall_ns }.wall_ns(ktime_ns);
        }
    }
}
