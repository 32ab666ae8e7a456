//! Resets by whose connection they ended.

use netobs_common::ledger::{Direction, ResetClass, ResetKey, Role};
use zerocopy::TryFromBytes as _;

use super::{
    cumulative::Cumulative,
    owner::{Owner, Workloads},
};

/// Labels of the reset family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResetLabels {
    /// Whose socket.
    pub owner: Owner,
    /// Which end the local socket is.
    pub role: Role,
    /// Local port of a server, remote port of a client; 0 when ephemeral.
    pub port: u16,
    /// Which way it went.
    pub direction: Direction,
    /// `skc_state` before it; 0 without a socket.
    pub state: u8,
    /// What it was about.
    pub class: ResetClass,
    /// The kernel's own reason, by its number here.
    pub reason: u32,
}

/// The book of resets.
pub type ResetBook = Cumulative<ResetKey, u64, ResetLabels, u64>;

/// Takes in the kernel side's counts.
pub fn take(book: &mut ResetBook, counts: &[(ResetKey, u64)], workloads: &mut dyn Workloads) {
    book.take(
        counts,
        |key| {
            Some(ResetLabels {
                owner: Owner::of(&key.owner, workloads),
                role: Role::try_read_from_bytes(&[key.role]).ok()?,
                port: key.port,
                direction: Direction::try_read_from_bytes(&[key.direction]).ok()?,
                state: key.state,
                class: ResetClass::try_read_from_bytes(&[key.class]).ok()?,
                reason: key.reason,
            })
        },
        |resets, _, growth| *resets += growth.of(|counter| *counter),
    );
}
