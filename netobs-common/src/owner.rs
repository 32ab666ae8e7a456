//! Whose a socket is.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The process that a socket belongs to: the one that called `connect()`, `listen()` or `accept()`.
///
/// Always taken in that process' own context, never from whatever task a softirq interrupted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Owner {
    /// Id of the process' cgroup (its directory's inode number); 0 when not known.
    pub cgroup: u64,
    /// Identity of the socket's network namespace, see [`crate::kernel::identity`]; 0 where it cannot
    /// be told.
    pub net: u64,
    /// Inode number of that namespace.
    pub netns: u32,
    /// Process id in the initial namespace; 0 when not known.
    pub pid: u32,
    /// Name of the process (of its first thread); zeros when not known.
    pub comm: [u8; 16],
}

/// What counts are attributed to: an [`Owner`] without its process id, so that a thousand
/// short-lived processes of one name and cgroup are one entry.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct OwnerKey {
    /// [`Owner::cgroup`].
    pub cgroup: u64,
    /// [`Owner::net`].
    pub net: u64,
    /// [`Owner::netns`]; 0 where the method cannot tell.
    pub netns: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
    /// [`Owner::comm`].
    pub comm: [u8; 16],
}

impl Owner {
    /// What its counts are attributed to.
    #[must_use]
    #[inline(always)]
    pub const fn key(&self) -> OwnerKey {
        OwnerKey {
            cgroup: self.cgroup,
            net: self.net,
            netns: self.netns,
            reserved: 0,
            comm: self.comm,
        }
    }
}
