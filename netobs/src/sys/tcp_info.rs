//! `TCP_INFO`: what the kernel itself says of one of our own sockets.

use std::{io, mem, os::fd::AsRawFd, time::Duration};

/// The part of `struct tcp_info` (include/uapi/linux/tcp.h) that a probe's story is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// `TCP_ESTABLISHED` and its like (include/net/tcp_states.h).
    pub state: u8,
    /// Unrecovered retransmission timeouts so far.
    pub timeouts: u8,
    /// Segments sent again over the life of the socket, the SYN among them.
    pub total_retransmits: u32,
    /// Smoothed round-trip time; zero before the first measurement.
    pub rtt: Duration,
}

impl TcpInfo {
    /// Asks the kernel.
    ///
    /// # Errors
    ///
    /// When `socket` is no TCP socket, or the kernel tells less than this structure needs.
    pub fn of(socket: &impl AsRawFd) -> io::Result<Self> {
        let mut info = mem::MaybeUninit::<libc::tcp_info>::zeroed();
        let whole = size_of::<libc::tcp_info>();
        let mut length = libc::socklen_t::try_from(whole).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `length` bytes behind the pointer, which is the size of
        // the structure there.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let needed = mem::offset_of!(libc::tcp_info, tcpi_total_retrans) + size_of::<u32>();
        if usize::try_from(length).map_err(io::Error::other)? < needed {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the kernel's TCP_INFO is too short",
            ));
        }
        // SAFETY: all fields are integers, and what the kernel did not write is zero.
        let info = unsafe { info.assume_init() };
        Ok(Self {
            state: info.tcpi_state,
            timeouts: info.tcpi_retransmits,
            total_retransmits: info.tcpi_total_retrans,
            rtt: Duration::from_micros(info.tcpi_rtt.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_over_loopback_loses_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let info = TcpInfo::of(&stream).unwrap();
        assert_eq!(info.state, 1);
        assert_eq!(info.total_retransmits, 0);
        assert!(info.rtt > Duration::ZERO);
    }

    #[test]
    fn other_sockets_have_none() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(TcpInfo::of(&socket).is_err());
    }
}
