//! What the kernel keeps of a loaded program: its cost, and the runs that it skipped.

use std::{io, os::fd::BorrowedFd, time::Duration};

use zerocopy::{FromBytes, FromZeros as _, Immutable, KnownLayout};

use super::raw;

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// What a program cost, and what it missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// Time in it, over all runs; kept with `kernel.bpf_stats_enabled` only.
    pub time: Duration,
    /// Runs; likewise.
    pub count: u64,
    /// Runs that the kernel skipped because the program, or another of its kind, was running on
    /// that CPU. Always kept, from 5.12 on.
    pub skipped: u64,
}

impl std::iter::Sum for RunStats {
    fn sum<I: Iterator<Item = Self>>(stats: I) -> Self {
        stats.fold(Self::default(), |sum, one| Self {
            time: sum.time + one.time,
            count: sum.count + one.count,
            skipped: sum.skipped + one.skipped,
        })
    }
}

/// `struct bpf_prog_info`, as far as its end matters. A kernel that knows less of it writes less, and
/// one that knows more writes this much.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct ProgramInfo {
    identity: [u64; 24],
    run_time_ns: u64,
    run_count: u64,
    recursion_misses: u64,
}

/// The members of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` uses.
#[repr(C)]
struct InfoByFd {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// Reads what the kernel keeps of a program.
pub(super) fn read(program: BorrowedFd<'_>) -> io::Result<RunStats> {
    // Zeros: no list that the kernel would write to.
    let mut info = ProgramInfo::new_zeroed();
    let attributes = InfoByFd {
        fd: raw::number(program),
        info_len: u32::try_from(size_of::<ProgramInfo>()).map_err(io::Error::other)?,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attributes of this command; the kernel writes at most `info_len` bytes to `info`,
    // which lives until the call returns.
    unsafe { raw::bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes) }?;
    Ok(RunStats {
        time: Duration::from_nanos(info.run_time_ns),
        count: info.run_count,
        skipped: info.recursion_misses,
    })
}
