//! Who a count is attributed to.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A container and a program in it, as the kernel knows them.
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
    /// Number of the cgroup in the cgroup2 hierarchy; 0 when not known.
    pub cgroup: u64,
    /// Inode number of the network namespace; 0 when not known.
    pub netns: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
    /// Name of the process, padded with zeros; all zeros when not known.
    pub comm: [u8; 16],
}
