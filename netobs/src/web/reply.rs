//! The body of an answer.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::deadline::Pulse;

/// Handed over in parts, so that the connection takes no more than it can send and the scrape
/// counts as running until its last part is on the way.
const PART_BYTES: usize = 16 * 1024;

/// A complete body, what it counts as, and whom to tell when it is gone.
pub(super) struct Reply {
    rest: Bytes,
    _scrape: Option<OwnedSemaphorePermit>,
    pulse: Arc<Pulse>,
}

impl Reply {
    pub(super) const fn new(
        body: Bytes,
        scrape: Option<OwnedSemaphorePermit>,
        pulse: Arc<Pulse>,
    ) -> Self {
        Self {
            rest: body,
            _scrape: scrape,
            pulse,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let part = self.rest.len().min(PART_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.pulse.answered();
    }
}
