//! A connection that a listener dropped.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Endpoints, EventHeader};
use crate::owner::Owner;

/// [`ListenDrop::method`]: the kernel side was there when it happened.
pub const DROP_SEEN: u8 = 0;
/// [`ListenDrop::method`]: the agent found out by looking; the peers are not known.
pub const DROP_POLLED: u8 = 1;

/// A listener dropped a SYN, or the ACK that would have completed a handshake.
///
/// Where the kernel side sees every drop, a listener that drops thousands in a second has an event
/// for the first ones of each 100 ms only; dropped SYNs leave the kernel by `consume_skb` and have none at all on
/// kernels without fentry and kprobes. The agent tells of the rest with an event of its own
/// ([`DROP_POLLED`]), so that [`ListenDrop::drops`] of all events adds up to what the ledger has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenDrop {
    /// When and where.
    pub header: EventHeader,
    /// Address of the listener's `struct sock`; 0 when the drops are of several that share an
    /// address (SO_REUSEPORT) or are not known by socket.
    pub sk: u64,
    /// Where the dropped packet came from (remote) and went to (local). Without the packet, the
    /// listener's own address, and zeros.
    pub ends: Endpoints,
    /// Who listens.
    pub owner: Owner,
    /// `sk_ack_backlog`.
    pub ack_backlog: u32,
    /// `sk_max_ack_backlog`.
    pub max_ack_backlog: u32,
    /// Connections that were dropped.
    pub drops: u32,
    /// `enum skb_drop_reason` of this kernel, or [`crate::kernel::NO_REASON`].
    pub reason: u32,
    /// A [`crate::ledger::Stage`].
    pub stage: u8,
    /// A [`crate::ledger::Reason`].
    pub cause: u8,
    /// [`DROP_SEEN`] or [`DROP_POLLED`].
    pub method: u8,
    /// Keeps the size a multiple of eight.
    pub reserved: [u8; 5],
}
