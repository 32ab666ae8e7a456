//! Resets.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Endpoints, EventHeader};
use crate::owner::Owner;

/// [`Reset::reason`]: this kernel gives none.
pub const NO_RESET_REASON: u32 = u32::MAX;

/// A RST was sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reset {
    /// When and where.
    pub header: EventHeader,
    /// Address of the `struct sock`; 0 when the RST answered a packet without a socket.
    pub sk: u64,
    /// The connection.
    pub ends: Endpoints,
    /// Whose socket it is.
    pub owner: Owner,
    /// From `connect()` or the end of the handshake to now, ns; 0 when not known.
    pub age_ns: u64,
    /// Since the socket last received or sent data, ns; 0 when not known.
    pub idle_ns: u64,
    /// `tcp_sock.bytes_acked`.
    pub bytes_acked: u64,
    /// `tcp_sock.bytes_received`.
    pub bytes_received: u64,
    /// `enum sk_rst_reason` of this kernel, or [`NO_RESET_REASON`].
    pub reason: u32,
    /// A [`crate::ledger::ResetClass`].
    pub class: u8,
    /// A [`crate::ledger::Direction`].
    pub direction: u8,
    /// A [`crate::ledger::Role`].
    pub role: u8,
    /// `skc_state` before the reset; 0 without a socket.
    pub state: u8,
}
