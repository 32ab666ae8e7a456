//! What need not be done when nothing has happened.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tracing::debug;

use super::Agent;
use crate::sys::arrivals::Arrivals;

/// For how long readings that say what the ones before said need not go through the books: they also
/// depend on which namespaces there are, on owners and on the clock.
const REST: Duration = Duration::from_secs(1);

/// Whether the books are as another reading of the same would leave them, and whether another one
/// would be the same.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// When a reading was taken into them.
    pub(super) taken_in: Option<Instant>,
    /// Its like would change nothing.
    pub(super) is_complete: bool,
    /// No drops waited for the namespace's counters.
    pub(super) is_settled: bool,
    /// Something came out of the ring since the last reading.
    pub(super) is_stirred: bool,
    /// `None` where the kernel does not tell: then every reading is made.
    arrivals: Option<Arrivals>,
}

impl Rest {
    pub(super) fn new(proc_root: &Path) -> Self {
        let arrivals = Arrivals::open(proc_root)
            .inspect_err(|error| debug!(%error, "listeners are read at each look"))
            .ok();
        Self {
            arrivals,
            ..Self::default()
        }
    }

    /// Something was read that is in no book, or could not be: the next look takes everything in.
    pub(super) fn disturb(&mut self) {
        (self.taken_in, self.is_settled) = (None, false);
    }

    /// Whether a reading that says the same need not be taken into the books.
    pub(super) fn lasts(&self) -> bool {
        self.is_complete && self.taken_in.is_some_and(|taken| taken.elapsed() < REST)
    }

    /// Whether a reading would say the same. Only a packet makes a listener drop or its queues
    /// longer; a listener that comes or goes has an event, or is found within a second.
    fn is_certain(&mut self) -> bool {
        // Asked each time, so that the answer is about the time since the last look.
        let arrived = self.arrivals.as_mut().is_none_or(Arrivals::any);
        !arrived && !self.is_stirred && self.is_settled && self.lasts()
    }
}

impl Agent {
    /// What [`Agent::look`] does, by the clock: where nothing can have happened to a listener since the
    /// last one, no listener is read.
    pub fn glance(&mut self) {
        if self.rest.is_certain() {
            self.last_look = Instant::now();
            self.look_elsewhere(false);
        } else {
            self.look();
        }
    }
}
