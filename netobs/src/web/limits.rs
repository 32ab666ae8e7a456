//! How much a client may ask for, and for how long; and how often the log says so.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Bounds on what clients can make the server hold. The defaults fit a handful of Prometheus
/// servers and health probes; tests shorten the times.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections served at once over all addresses; more wait in the kernel's accept queue.
    pub connections: usize,
    /// Answers to the telemetry path in flight at once; beyond, status 503 with `Retry-After`.
    pub scrapes: usize,
    /// Answers with recorded events in flight at once; beyond, status 503 with `Retry-After`.
    pub recordings: usize,
    /// From connecting, or from the first byte of a later request, to the end of its headers.
    pub header_timeout: Duration,
    /// From the end of the headers to the last byte of the answer handed to the kernel; of an answer
    /// with recorded events, from one part to the next.
    pub answer_timeout: Duration,
    /// How long a connection may stay open between two requests. Longer than the usual scrape
    /// interval of one minute, so that Prometheus keeps its connection.
    pub idle_timeout: Duration,
    /// Bytes of request line and headers together.
    pub header_bytes: usize,
    /// TLS handshakes begun per second, on average; more wait within `header_timeout`, in their order.
    /// Besides, all handshakes together get a fifth of one CPU: each takes up to some milliseconds
    /// of it before anything is known about the client.
    pub handshakes_per_second: u32,
    /// How long a shutdown waits for answers that are being written.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            scrapes: 8,
            recordings: 2,
            header_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(120),
            header_bytes: 8 * 1024,
            handshakes_per_second: 50,
            drain_timeout: Duration::from_secs(2),
        }
    }
}

/// Lets a repeated complaint through once a minute, so that a client cannot fill the log.
#[derive(Debug, Default)]
pub(super) struct Sparingly(Mutex<Option<Instant>>);

impl Sparingly {
    const PERIOD: Duration = Duration::from_secs(60);

    /// Whether the complaint may be logged at `now`.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= Self::PERIOD);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_complaint_passes_once_a_minute() {
        let sparingly = Sparingly::default();
        let start = Instant::now();
        assert!(sparingly.allows(start));
        assert!(!sparingly.allows(start + Duration::from_secs(59)));
        assert!(sparingly.allows(start + Duration::from_secs(60)));
        assert!(!sparingly.allows(start + Duration::from_secs(61)));
    }
}
