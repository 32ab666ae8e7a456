//! Connections taken from an accept queue.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Endpoints, EventHeader};
use crate::owner::Owner;

/// A connection was taken by `accept()`. Without being asked for, only those that waited long have
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Accept {
    /// When and where.
    pub header: EventHeader,
    /// Address of the connection's `struct sock`.
    pub sk: u64,
    /// The connection.
    pub ends: Endpoints,
    /// Who called `accept()`.
    pub owner: Owner,
    /// From the end of the handshake to now, ns.
    pub latency_ns: u64,
}
