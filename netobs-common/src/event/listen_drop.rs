//! A dropped final ACK.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::EventHeader;
use crate::owner::Owner;

/// A listener dropped the ACK that would have completed a handshake.
///
/// Dropped SYNs leave the kernel by `consume_skb` and have no event on kernels without kprobes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenDrop {
    /// When and where.
    pub header: EventHeader,
    /// Address of the listener's `struct sock`.
    pub sk: u64,
    /// Who listens.
    pub owner: Owner,
    /// `sk_ack_backlog`.
    pub ack_backlog: u32,
    /// `sk_max_ack_backlog`.
    pub max_ack_backlog: u32,
    /// `enum skb_drop_reason` of this kernel.
    pub reason: u32,
    /// Host byte order.
    pub local_port: u16,
    /// Keeps the size a multiple of eight.
    pub reserved: u16,
}
