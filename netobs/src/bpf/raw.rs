//! The system call itself, for the commands that aya has no use for.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// Makes the system call; what it returns is a descriptor for some commands.
///
/// # Safety
///
/// `attributes` must be what `command` expects.
pub(super) unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes there, and treats what is missing as zero.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(answer).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A descriptor as the attributes have it.
pub(super) fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs() // an open descriptor is never negative
}
