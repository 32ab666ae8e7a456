//! A listener's life.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::EventHeader;
use crate::owner::Owner;

/// [`ListenerChange::change`]: `listen()` was called.
pub const LISTENER_OPENED: u32 = 1;
/// [`ListenerChange::change`]: the socket was destroyed.
pub const LISTENER_CLOSED: u32 = 2;

/// A listener was opened or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenerChange {
    /// When and where.
    pub header: EventHeader,
    /// Address of the `struct sock`.
    pub sk: u64,
    /// Who called `listen()`.
    pub owner: Owner,
    /// IPv4 in the first four bytes, or IPv6; network byte order.
    pub local_address: [u8; 16],
    /// Host byte order.
    pub local_port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// [`LISTENER_OPENED`] or [`LISTENER_CLOSED`].
    pub change: u32,
}
