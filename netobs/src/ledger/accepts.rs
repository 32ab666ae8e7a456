//! Waits in accept queues, by listening address.

use netobs_common::connection::{AcceptCounts, Latencies, ListenerKey};

use super::{connects::add_latencies, cumulative::Cumulative};

/// What one address holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptValues {
    /// Handshakes that completed.
    pub established: u64,
    /// Connections taken by `accept()`.
    pub accepted: u64,
    /// From the end of the handshake to `accept()`.
    pub latency: Latencies,
}

/// The book of accepted connections. Its labels are addresses, to be joined with those of the
/// listeners there.
pub type AcceptBook = Cumulative<ListenerKey, AcceptCounts, ListenerKey, AcceptValues>;

/// Takes in the kernel side's counts.
pub fn take(book: &mut AcceptBook, counts: &[(ListenerKey, AcceptCounts)]) {
    book.take(
        counts,
        |key| Some(*key),
        |values, _, growth| {
            values.established += growth.of(|counts| counts.established);
            values.accepted += growth.of(|counts| counts.accepted);
            add_latencies(&mut values.latency, &growth, |counts| &counts.latency);
        },
    );
}
