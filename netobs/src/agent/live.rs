//! The agent without a server: it looks, takes events as they come, and ends when it is told to.

use std::{
    io,
    ops::ControlFlow,
    os::fd::{AsFd as _, BorrowedFd},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Agent, DISCOVERY_INTERVAL, LOOK_INTERVAL};

/// Why watching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A signal.
    Signal,
    /// The output is gone.
    OutputGone,
    /// The time is up.
    Duration,
    /// Who listens in has seen enough.
    Enough,
}

/// What ends it.
pub struct Watch<'a> {
    /// Readable when a signal waits.
    pub signals: BorrowedFd<'a>,
    /// Where events are written to; that its reader is gone is noticed though nothing is written.
    pub output: BorrowedFd<'a>,
    /// For how long at most.
    pub duration: Option<Duration>,
}

impl Agent {
    /// Looks ten times a second, and takes events from the ring in between, until `enough` says so or
    /// something in `watch` ends it. The last look comes after that.
    ///
    /// # Errors
    ///
    /// When the kernel does not let it wait.
    pub fn watch(
        &mut self,
        watch: &Watch<'_>,
        mut enough: impl FnMut() -> ControlFlow<()>,
    ) -> io::Result<Ending> {
        self.watch_with(watch, |_| enough())
    }

    /// The same, with `enough` asked about the agent.
    ///
    /// # Errors
    ///
    /// When the kernel does not let it wait.
    pub fn watch_with(
        &mut self,
        watch: &Watch<'_>,
        mut enough: impl FnMut(&mut Self) -> ControlFlow<()>,
    ) -> io::Result<Ending> {
        let begun = Instant::now();
        let mut next_look = begun;
        let mut next_discovery = begun + DISCOVERY_INTERVAL;
        let ending = loop {
            let now = Instant::now();
            if now >= next_look {
                self.glance();
                // A look that comes late is not made up for.
                next_look = Instant::now().max(next_look + LOOK_INTERVAL);
            }
            if now >= next_discovery {
                self.patrol();
                next_discovery = now + DISCOVERY_INTERVAL;
            }
            if enough(self).is_break() {
                break Ending::Enough;
            }
            let left = watch
                .duration
                .map(|duration| duration.saturating_sub(begun.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                break Ending::Duration;
            }
            let pause = next_look.saturating_duration_since(Instant::now());
            if let Some(ending) = self.wait(watch, pause.min(left.unwrap_or(pause)))? {
                break ending;
            }
            self.take_events();
        };
        self.look();
        Ok(ending)
    }

    /// Waits until a part of the ring is full, or for so long.
    fn wait(&self, watch: &Watch<'_>, pause: Duration) -> io::Result<Option<Ending>> {
        let ring = self.events.as_fd();
        let mut waiting = [
            PollFd::new(ring, PollFlags::POLLIN),
            PollFd::new(watch.signals, PollFlags::POLLIN),
            PollFd::new(watch.output, PollFlags::empty()),
        ];
        // Rounded up: a poll that returns early would be repeated at once.
        let pause = pause + Duration::from_micros(999);
        let timeout = PollTimeout::try_from(pause.as_millis()).unwrap_or(PollTimeout::MAX);
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [_, signals, output] = waiting.map(|waiting| waiting.revents());
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
        Ok(if signals.is_some_and(|events| !events.is_empty()) {
            Some(Ending::Signal)
        } else if output.is_some_and(|events| events.intersects(gone)) {
            Some(Ending::OutputGone)
        } else {
            None
        })
    }
}
