//! Waiting for the event ring to fill.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

use super::Ring;

/// Tells when a quarter of the ring begins to wait.
pub struct Filling(AsyncFd<OwnedFd>);

impl Filling {
    /// Begins to watch; inside a runtime.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left, or the ring cannot be waited for.
    pub fn watch(ring: &Ring) -> io::Result<Self> {
        let own = ring.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is owned by what is registered: it stays open, and the same, until
        // it is taken from the runtime's list again.
        let registered = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits until the kernel side says so; for ever when the runtime ends.
    pub async fn wait(&self) {
        match self.0.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }
}
