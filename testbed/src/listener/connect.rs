//! Ordinary client sockets: opened in the calling thread's namespace.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::socket::{SockaddrStorage, connect, setsockopt, sockopt},
};

use super::options;

/// Begins a connection and does not wait for it. Run it inside [`crate::Ns::run`].
///
/// A socket that is dropped before its handshake is over sends nothing more.
///
/// # Errors
/// When no socket can be opened or `connect` fails at once.
pub fn connect_nonblocking(address: SocketAddr) -> Result<OwnedFd> {
    let fd = options::stream(address, libc::IPPROTO_TCP).context("open a socket")?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        Err(error) => Err(error).with_context(|| format!("connect to {address}")),
    }
}

/// Closes a connection with a RST, so that nothing of it remains.
///
/// # Errors
/// When `SO_LINGER` cannot be set.
pub fn abort(socket: impl Into<OwnedFd>) -> Result<()> {
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&socket.into(), sockopt::Linger, &now).context("set SO_LINGER")
}

/// Sets `SO_MARK`, which every segment sent from now on carries: see [`crate::rule::Select::Mark`].
///
/// # Errors
/// When the process may not set marks.
pub fn set_mark(socket: &impl AsFd, mark: u32) -> Result<()> {
    setsockopt(&socket.as_fd(), sockopt::Mark, &mark).context("set SO_MARK")
}

/// How many segments of a connection were sent again, ever: `tcpi_total_retrans` of `TCP_INFO`.
///
/// # Errors
/// When the kernel does not answer.
pub fn total_retransmits(socket: &impl AsFd) -> Result<u32> {
    Ok(information(socket)?.tcpi_total_retrans)
}

/// `TCP_INFO` of a connection.
pub(crate) fn information(socket: &impl AsFd) -> Result<libc::tcp_info> {
    // SAFETY: tcp_info is plain data; all zero bytes are a valid value of it.
    let mut information: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>())?;
    // SAFETY: pointer and length are those of a live value; the kernel writes no more than that.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            std::ptr::from_mut(&mut information).cast(),
            &raw mut length,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error()).context("read TCP_INFO");
    }
    Ok(information)
}
