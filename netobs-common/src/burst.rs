//! Bins of 100 ms: how many of something happened in each, by the kernel's own clock.
//!
//! The kernel side counts into the bin of the moment, and the agent takes bins that are over. So a
//! burst is placed rightly however late the agent gets to run.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Length of a bin, ns.
pub const BIN_NS: u64 = 100_000_000;

/// What a bin counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum BurstSignal {
    /// Segments sent again; the subject is the inode number of a network namespace.
    Retransmit = 0,
    /// Connections dropped by a listener; the subject is the address of its `struct sock`.
    ListenDrop = 1,
}

/// One bin of one subject.
#[derive(
    Clone,
    Copy,
    Debug,
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
pub struct BurstKey {
    /// See [`BurstSignal`].
    pub subject: u64,
    /// CLOCK_MONOTONIC over [`BIN_NS`]; enough for 13 years.
    pub bin: u32,
    /// A [`BurstSignal`].
    pub signal: u32,
}

/// The bin of a moment, given in CLOCK_MONOTONIC ns.
#[inline]
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    reason = "13 years without a restart are not reached"
)]
pub const fn bin_of(ktime_ns: u64) -> u32 {
    (ktime_ns / BIN_NS) as u32
}
