//! What all phases of one measurement share: its clock, its files, who listens to the kernel.

use std::time::Duration;

use tokio::time::Instant;

use super::{kernel::KernelStory, outcome::Span, resolver::Files};

/// One measurement under way.
pub(super) struct Course<'a> {
    pub(super) started: Instant,
    /// When the whole must be over.
    pub(super) deadline: Instant,
    pub(super) files: &'a Files,
    pub(super) kernel: &'a dyn KernelStory,
}

impl Course<'_> {
    /// Time since the start.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// When a phase that begins now must be over.
    pub(super) fn limit(&self, most: Option<Duration>) -> Instant {
        let own = most.and_then(|most| Instant::now().checked_add(most));
        own.map_or(self.deadline, |own| own.min(self.deadline))
    }

    /// From `start` to now.
    pub(super) fn span(&self, start: Duration) -> Span {
        Span {
            start,
            length: self.now().saturating_sub(start),
        }
    }
}
