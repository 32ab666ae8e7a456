//! Who gives way when every connection that may be served is taken.
//!
//! A connection on which the client has the next move costs little to lose. One that waits between
//! two requests goes first: its client opens another. Then the one that has kept the server waiting
//! longest for a handshake or the end of a request's headers: an honest client needs a moment for
//! that, and clients that never get on with it cannot keep others out.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What a connection waits for its client to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// Asking again.
    NextRequest,
    /// Coming to the end of its handshake, or of the headers that it sends.
    Rest,
}

/// Asks connections to give way.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    next_request: Queue,
    rest: Queue,
}

/// Connections that wait, the longest first.
#[derive(Debug, Default)]
struct Queue {
    asked: Notify,
    length: AtomicUsize,
}

/// A place in a queue.
struct Waits<'a>(&'a Queue);

impl<'a> Waits<'a> {
    fn in_queue(queue: &'a Queue) -> Self {
        queue.length.fetch_add(1, Ordering::Relaxed);
        Self(queue)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.length.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pressure {
    /// Asks one connection to give way, if there is one that can.
    pub(super) fn press(&self) {
        let queues = [&self.next_request, &self.rest];
        let waits = |queue: &&&Queue| queue.length.load(Ordering::Relaxed) > 0;
        if let Some(queue) = queues.iter().find(waits) {
            queue.asked.notify_one();
        }
    }

    /// Completes when a connection that waits for this is asked to give way.
    pub(super) async fn asked(&self, awaited: Awaited) {
        let queue = match awaited {
            Awaited::NextRequest => &self.next_request,
            Awaited::Rest => &self.rest,
        };
        let _waits = Waits::in_queue(queue);
        queue.asked.notified().await;
    }

    /// What the client does next; `None` when the connection is asked to give way before.
    pub(super) async fn unless_asked<T>(&self, client: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = client => Some(done),
            () = self.asked(Awaited::Rest) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        task::{Context, Waker},
    };

    use super::*;

    fn is_ready<T>(future: Pin<&mut impl Future<Output = T>>) -> bool {
        future
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn idle_ones_go_first_then_the_one_that_waits_longest() {
        let pressure = Pressure::default();
        let mut first = pin!(pressure.asked(Awaited::Rest));
        let mut second = pin!(pressure.asked(Awaited::Rest));
        let mut idle = pin!(pressure.asked(Awaited::NextRequest));
        for waits in [&mut first, &mut second, &mut idle] {
            assert!(!is_ready(waits.as_mut()));
        }
        pressure.press();
        assert!(!is_ready(first.as_mut()));
        assert!(is_ready(idle.as_mut()));
        pressure.press();
        assert!(!is_ready(second.as_mut()));
        assert!(is_ready(first.as_mut()));
    }

    /// Where nobody can give way, whoever comes next is not to pay for it.
    #[test]
    fn pressure_is_not_stored() {
        let pressure = Pressure::default();
        pressure.press();
        assert!(!is_ready(pin!(pressure.asked(Awaited::Rest))));
        assert!(!is_ready(pin!(pressure.asked(Awaited::NextRequest))));
        pressure.press();
        let client = std::future::pending::<()>();
        assert!(!is_ready(pin!(pressure.unless_asked(client))));
    }
}
