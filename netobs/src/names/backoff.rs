//! How long to wait before the next try.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// Doubles from half a second to a minute. Each delay is cut by up to a half, by chance: a fleet
/// does not come back all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: SHORTEST }
    }
}

impl Backoff {
    /// Begins anew, after a success.
    pub(super) fn reset(&mut self) {
        self.next = SHORTEST;
    }

    /// The delay before the next try.
    pub(super) fn delay(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        // The standard library's one source of chance: its hashes have other keys each time.
        let chance = RandomState::new().hash_one(whole);
        let percent = u32::try_from(chance % 51).unwrap_or_default();
        whole - whole * percent / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_minute_and_differ() {
        let mut backoff = Backoff::default();
        let delays: Vec<Duration> = (0..40).map(|_| backoff.delay()).collect();
        let mut whole = SHORTEST;
        for delay in &delays {
            assert!(*delay <= whole && *delay >= whole / 2, "{delay:?}");
            whole = (whole * 2).min(LONGEST);
        }
        let last = &delays[20..];
        assert!(last.iter().any(|delay| *delay != last[0]));
        backoff.reset();
        assert!(backoff.delay() <= SHORTEST);
    }
}
