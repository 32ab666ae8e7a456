//! A clock that wakes the agent exactly when it is due.
//!
//! The runtime's own timer sorts what is more than 64 ms away by 64 ms, and wakes up once more to
//! sort it finer: twice the wake-ups for a tick each 100 ms.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use nix::{
    sys::{
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    unistd::read,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Ticks at a fixed interval. What was missed is not made up for.
pub struct Ticker(AsyncFd<OwnedFd>);

impl Ticker {
    /// Begins to tick; inside a runtime. The first tick is one interval away.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left.
    pub fn start(interval: Duration) -> io::Result<Self> {
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        timer.set(
            Expiration::Interval(TimeSpec::from_duration(interval)),
            TimerSetTimeFlags::empty(),
        )?;
        // SAFETY: the descriptor is owned by what is registered: it stays open, and the same, until
        // it is taken from the runtime's list again.
        let registered =
            unsafe { AsyncFd::register_with_interest(OwnedFd::from(timer), Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits for the next tick; for ever when the runtime ends. Nothing is lost when it is given up.
    pub async fn tick(&self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else {
                return std::future::pending().await;
            };
            // The number of ticks since the last read; not ready means that it was a false alarm.
            let mut ticks = [0; 8];
            let read = ready.try_io(|timer| Ok(read(timer.get_ref().as_fd(), &mut ticks)?));
            if let Ok(Ok(_)) = read {
                // All ticks are read: the next one makes it ready again. Another read would only say so.
                ready.clear_ready();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ticks_again_and_again() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let ticker = Ticker::start(Duration::from_millis(1)).unwrap();
            for _ in 0..3 {
                ticker.tick().await;
            }
        });
    }
}
