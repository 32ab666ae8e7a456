//! By when a connection must have got on with it.
//!
//! A connection is always in one of three phases, each with its own deadline. Because the deadline
//! belongs to the phase and not to single reads and writes, a client that sends or takes one byte
//! now and then gains nothing by it.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};

use super::{Limits, pressure::Awaited};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The headers of a request are arriving.
    Head,
    /// A request is being answered.
    Answer,
    /// The answer has been handed over in full, but not all of it to the kernel yet.
    Flush,
    /// Waiting for the next request.
    Idle,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    deadline: Instant,
}

/// The phase of one connection, shared by its socket, its requests and its task.
#[derive(Debug)]
pub(super) struct Pulse {
    state: Mutex<State>,
    changed: Notify,
    limits: Limits,
}

impl Pulse {
    /// A connection that was just accepted: its first request is due.
    pub(super) fn new(limits: Limits) -> Self {
        let state = State {
            phase: Phase::Head,
            deadline: Instant::now() + limits.header_timeout,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            limits,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase, deadline: Instant) {
        *self.state() = State { phase, deadline };
        self.changed.notify_one();
    }

    /// When the current phase must be over.
    pub(super) fn deadline(&self) -> Instant {
        self.state().deadline
    }

    /// Whether the connection waits between two requests.
    fn is_idle(&self) -> bool {
        self.state().phase == Phase::Idle
    }

    /// What the client has to do next; `None` while it is answered.
    pub(super) fn awaited(&self) -> Option<Awaited> {
        match self.state().phase {
            Phase::Idle => Some(Awaited::NextRequest),
            Phase::Head => Some(Awaited::Rest),
            Phase::Answer | Phase::Flush => None,
        }
    }

    /// Completes after the phase changed; at once if it did since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The headers of a request are complete.
    pub(super) fn answering(&self) {
        self.set(Phase::Answer, Instant::now() + self.limits.answer_timeout);
    }

    /// The body of the answer was handed over to the connection, or given up.
    pub(super) fn answered(&self) {
        let deadline = self.deadline();
        self.set(Phase::Flush, deadline);
    }

    fn received(&self) {
        if self.is_idle() {
            self.set(Phase::Head, Instant::now() + self.limits.header_timeout);
        }
    }

    fn flushed(&self) {
        let phase = self.state().phase;
        if phase == Phase::Flush {
            self.set(Phase::Idle, Instant::now() + self.limits.idle_timeout);
        }
    }
}

/// A stream that reports to a [`Pulse`].
pub(super) struct Watched<S> {
    stream: S,
    pulse: Arc<Pulse>,
}

impl<S> Watched<S> {
    pub(super) const fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pulse.received();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called by the connection only when its own buffers are empty.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = polled {
            self.pulse.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn phases_follow_each_other() {
        let limits = Limits {
            header_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(120),
            ..Limits::default()
        };
        let pulse = Pulse::new(limits);
        let left = |pulse: &Pulse| {
            let left = pulse.deadline().saturating_duration_since(Instant::now());
            left.as_secs_f64().round()
        };
        assert_eq!(left(&pulse), 5.0);
        pulse.received(); // Bytes do not prolong the first request.
        pulse.flushed(); // Nor does a flush with nothing to send end it.
        assert!(!pulse.is_idle());
        pulse.answering();
        assert_eq!(left(&pulse), 15.0);
        pulse.flushed(); // Between two parts of a body.
        assert!(!pulse.is_idle());
        pulse.answered();
        assert_eq!(left(&pulse), 15.0);
        pulse.flushed();
        assert!(pulse.is_idle());
        assert_eq!(left(&pulse), 120.0);
        pulse.received();
        assert!(!pulse.is_idle());
        assert_eq!(left(&pulse), 5.0);
    }
}
