//! Now and then, connections whose end was not seen are looked for.

use crate::bpf::{GoneSockets, IterError};

/// Once a minute, in [`super::Agent::patrol`]s, which come every five seconds.
const OFTEN: u32 = 12;
/// Every sixteen minutes, where there never are any.
const RARELY: u32 = 16 * OFTEN;

/// When to look, and with what.
pub(super) struct Sweep {
    gone: Option<GoneSockets>,
    /// Patrols from one sweep to the next.
    interval: u32,
    waited: u32,
    /// Connections that were found in all.
    found: u64,
    /// Losses for want of room in all.
    lacked: u64,
}

impl Sweep {
    pub(super) fn new(gone: Option<GoneSockets>) -> Self {
        Self {
            gone,
            interval: OFTEN,
            waited: 0,
            found: 0,
            lacked: 0,
        }
    }

    /// Looks if it is time, or if there was no room for something since the last call: `lacked` is how
    /// often that was in all, `found` how many were found in all sweeps.
    pub(super) fn patrol(&mut self, found: u64, lacked: u64) -> Result<(), IterError> {
        if self.is_due(found, lacked)
            && let Some(gone) = &self.gone
        {
            return gone.sweep();
        }
        Ok(())
    }

    fn is_due(&mut self, found: u64, lacked: u64) -> bool {
        if found > self.found {
            self.found = found;
            self.interval = OFTEN;
        }
        self.waited += 1;
        let presses = lacked > self.lacked;
        self.lacked = self.lacked.max(lacked);
        if !presses && self.waited < self.interval {
            return false;
        }
        self.waited = 0;
        self.interval = self.interval.saturating_mul(2).min(RARELY);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many calls the next sweep is.
    fn next(sweep: &mut Sweep, found: u64, lacked: u64) -> u32 {
        let mut calls = 1;
        while !sweep.is_due(found, lacked) {
            calls += 1;
        }
        calls
    }

    #[test]
    fn where_nothing_is_found_it_looks_more_rarely() {
        let mut sweep = Sweep::new(None);
        let calls: Vec<u32> = (0..6).map(|_| next(&mut sweep, 0, 0)).collect();
        assert_eq!(calls, [12, 24, 48, 96, 192, 192]);
        assert_eq!(next(&mut sweep, 3, 0), 12);
        assert_eq!(next(&mut sweep, 3, 0), 24);
        assert_eq!(next(&mut sweep, 4, 0), 12);
    }

    #[test]
    fn when_room_is_short_it_looks_at_once() {
        let mut sweep = Sweep::new(None);
        assert_eq!(next(&mut sweep, 0, 5), 1);
        assert_eq!(next(&mut sweep, 0, 5), 24);
    }
}
