//! Outgoing handshakes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Endpoints, EventHeader};
use crate::owner::Owner;

/// [`Connect::failure`]: the handshake completed.
pub const CONNECTED: u8 = u8::MAX;

/// The end of an outgoing handshake. Without being asked for, only those that failed or took a
/// retransmitted SYN have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Connect {
    /// When and where.
    pub header: EventHeader,
    /// Address of the `struct sock`.
    pub sk: u64,
    /// The connection.
    pub ends: Endpoints,
    /// Who called `connect()`.
    pub owner: Owner,
    /// From `connect()` to now, ns.
    pub latency_ns: u64,
    /// SYNs sent again.
    pub syn_retransmits: u32,
    /// `sk_err`: 0 or a positive errno.
    pub err: u32,
    /// A [`crate::connection::ConnectFailure`], or [`CONNECTED`].
    pub failure: u8,
    /// Keeps the size a multiple of eight.
    pub reserved: [u8; 7],
}
