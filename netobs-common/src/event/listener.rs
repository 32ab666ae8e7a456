//! A listener's life.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::EventHeader;

/// [`ListenerChange::change`]: `listen()` was called.
pub const LISTENER_OPENED: u32 = 1;
/// [`ListenerChange::change`]: the socket was destroyed.
pub const LISTENER_CLOSED: u32 = 2;
/// [`ListenerChange::change`]: it was there already when the agent, or a recording, began.
pub const LISTENER_FOUND: u32 = 3;

/// A listener was opened, closed or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenerChange {
    /// When and where.
    pub header: EventHeader,
    /// Address of the `struct sock`.
    pub sk: u64,
    /// [`LISTENER_OPENED`], [`LISTENER_CLOSED`] or [`LISTENER_FOUND`].
    pub change: u32,
    /// Process that called `listen()`, or that was found to hold it; 0 when closed or not known.
    pub pid: u32,
    /// IPv4 in the first four bytes, or IPv6; network byte order.
    pub local_address: [u8; 16],
    /// Host byte order.
    pub local_port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
    /// Name of the thread that called `listen()`, or of the process that holds it; zeros when not
    /// known.
    pub comm: [u8; 16],
}
