//! Signals that end a command, as something to wait for.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};

/// SIGINT and SIGTERM, or more, kept back from the calling thread and from those that it starts later.
#[derive(Debug)]
pub struct EndSignals(SignalFd);

impl EndSignals {
    /// To be called before any thread is started: one that takes signals would end the process.
    ///
    /// # Errors
    ///
    /// When the kernel gives no descriptor.
    pub fn take() -> io::Result<Self> {
        Self::of(&[Signal::SIGINT, Signal::SIGTERM])
    }

    /// SIGHUP as well, for a command that has changed its terminal. To be called before any thread is
    /// started.
    ///
    /// # Errors
    ///
    /// When the kernel gives no descriptor.
    pub fn take_with_hangup() -> io::Result<Self> {
        Self::of(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
    }

    fn of(wanted: &[Signal]) -> io::Result<Self> {
        let signals: SigSet = wanted.iter().copied().collect();
        signals.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&signals, flags)?))
    }
}

impl AsFd for EndSignals {
    /// Readable when one of them has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
