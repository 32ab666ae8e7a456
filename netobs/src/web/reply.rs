//! The body of an answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    deadline::Pulse,
    events::{Parts, TooLong},
};

/// Handed over in parts, so that the connection takes no more than it can send and the scrape
/// counts as running until its last part is on the way.
const PART_BYTES: usize = 16 * 1024;

/// What is left of a body.
enum Rest {
    /// All of it is there.
    Whole(Bytes),
    /// It is made part by part.
    Parts(Parts),
}

/// A body, what it counts as, and whom to tell when it is gone.
pub(super) struct Reply {
    rest: Rest,
    _counts: Option<OwnedSemaphorePermit>,
    pulse: Arc<Pulse>,
}

impl Reply {
    /// A complete body.
    pub(super) const fn new(
        body: Bytes,
        counts: Option<OwnedSemaphorePermit>,
        pulse: Arc<Pulse>,
    ) -> Self {
        Self {
            rest: Rest::Whole(body),
            _counts: counts,
            pulse,
        }
    }

    /// One that is made as it is taken.
    pub(super) const fn streamed(
        parts: Parts,
        counts: OwnedSemaphorePermit,
        pulse: Arc<Pulse>,
    ) -> Self {
        Self {
            rest: Rest::Parts(parts),
            _counts: Some(counts),
            pulse,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = TooLong;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TooLong>>> {
        match &mut self.rest {
            Rest::Whole(rest) if rest.is_empty() => Poll::Ready(None),
            Rest::Whole(rest) => {
                let part = rest.len().min(PART_BYTES);
                Poll::Ready(Some(Ok(Frame::data(rest.split_to(part)))))
            }
            Rest::Parts(parts) => {
                let polled = parts.poll_recv(cx);
                if let Poll::Ready(Some(Ok(_))) = &polled {
                    // The client has taken what came before.
                    self.pulse.answering();
                }
                polled.map(|part| part.map(|part| part.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.rest, Rest::Whole(rest) if rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Rest::Whole(rest) => SizeHint::with_exact(rest.len() as u64),
            Rest::Parts(_) => SizeHint::default(),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.pulse.answered();
    }
}
