//! A name lookup that came to an end.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::EventHeader;
use crate::dns::Lookup;

/// [`Dns::outcome`]: an answer came in time.
pub const DNS_ANSWERED: u16 = 1;
/// [`Dns::outcome`]: no answer came in time.
pub const DNS_UNANSWERED: u16 = 2;
/// [`Dns::outcome`]: an answer came to a lookup that has just been counted as unanswered.
pub const DNS_LATE: u16 = 3;

/// A lookup that was slow, failed or remained unanswered; all others only when asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Dns {
    /// When it ended, and where.
    pub header: EventHeader,
    /// From the first query to now, ns.
    pub latency_ns: u64,
    /// The lookup.
    pub lookup: Lookup,
    /// [`DNS_ANSWERED`], [`DNS_UNANSWERED`] or [`DNS_LATE`].
    pub outcome: u16,
    /// The flags of the answer's header, host byte order; 0 without an answer.
    pub answer_flags: u16,
    /// Records in the answer section, as the answer's header claims.
    pub answers: u16,
    /// Keeps the size a multiple of eight.
    pub reserved: u16,
}
