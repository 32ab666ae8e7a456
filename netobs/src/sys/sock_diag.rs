//! TCP sockets of the calling thread's network namespace, from the kernel's `sock_diag`.
//!
//! A netlink socket belongs to the namespace it was made in: run this inside a visit
//! ([`crate::sys::netns::NetnsWorker`]) to look at another one. No capability is needed.
//! A dump is not a snapshot: sockets come and go while it runs, and one may be missed or seen
//! twice. Each socket costs the kernel a few hundred nanoseconds, time stamps and all.
//!
//! kernel: net/ipv4/inet_diag.c `inet_diag_dump_icsk()`, `include/uapi/linux/inet_diag.h`

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};

pub use netlink_packet_sock_diag::inet::StateFlags;

/// The kernel fills at most 32 KiB at a time.
const BUFFER_BYTES: usize = 64 << 10;
/// The kernel answers at once; this only bounds a fault.
const TIMEOUT_SECONDS: i64 = 5;

/// Why sockets could not be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SockDiagError {
    /// The kernel has no `tcp_diag`, or does not allow the question.
    #[error("failed to ask for the TCP sockets")]
    Ask(#[source] io::Error),
    /// The answer ended early.
    #[error("failed to receive the TCP sockets")]
    Receive(#[source] io::Error),
    /// The answer is not of the known form; the reason, in words.
    #[error("failed to read the list of TCP sockets: {0}")]
    Malformed(String),
}

/// One TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// State, as `TCP_ESTABLISHED` (1) to `TCP_NEW_SYN_RECV` (12).
    pub state: u8,
    /// Local address and port. IPv4 connections of IPv6 sockets have IPv4 addresses here.
    pub local: SocketAddr,
    /// Remote address and port; unspecified for listeners.
    pub remote: SocketAddr,
    /// Listeners: connections waiting for `accept()`. Others: bytes not yet read.
    pub recv_queue: u32,
    /// Listeners: the limit of that queue. Others: bytes not yet acknowledged.
    pub send_queue: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Inode; 0 when no program holds the socket.
    pub inode: u32,
    /// The kernel's cookie, unique until reboot.
    pub cookie: u64,
    /// `sk_drops`: packets dropped on their way to this socket, modulo 2^32.
    pub drops: Option<u32>,
    /// Part of `struct tcp_info`, when asked for.
    pub info: Option<TcpInfo>,
}

/// The members of `struct tcp_info` that are used here.
///
/// The structure only ever grows at its end, so the offsets below hold for every kernel; what an
/// old one does not send is `None` or zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Times the retransmission timeout was doubled.
    pub backoff: u8,
    /// `TCPI_OPT_*`.
    pub options: u8,
    /// Sending segment size, in bytes.
    pub snd_mss: u32,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Path MTU, in bytes.
    pub pmtu: u32,
    /// Smoothed round trip, in microseconds.
    pub rtt_us: u32,
    /// Bytes per second, as last measured (4.9).
    pub delivery_rate: Option<u64>,
    /// Microseconds with something to send (4.9).
    pub busy_us: Option<u64>,
    /// Microseconds of them limited by the send buffer (4.9).
    pub sndbuf_limited_us: Option<u64>,
}

impl TcpInfo {
    /// Time stamps are in use.
    pub const TIMESTAMPS: u8 = 1;
    /// Window scaling is in use.
    pub const WINDOW_SCALING: u8 = 4;

    /// Reads the attribute's bytes; `None` when it has not even the first members.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        Some(Self {
            backoff: *bytes.get(4)?,
            options: *bytes.get(5)?,
            snd_mss: word(16)?,
            unacked: word(24)?,
            pmtu: word(60)?,
            rtt_us: word(68)?,
            delivery_rate: long(160),
            busy_us: long(168),
            sndbuf_limited_us: long(184),
        })
    }
}

/// Calls `each` for every TCP socket in one of `states`, IPv4 and then IPv6, until it returns
/// false. `with_info` also asks for `struct tcp_info`.
///
/// # Errors
/// [`SockDiagError`] when the kernel refuses, or the answer breaks off. A kernel without IPv6 has
/// no IPv6 sockets.
pub fn for_each_tcp(
    states: &StateFlags,
    with_info: bool,
    mut each: impl FnMut(TcpSocket) -> bool,
) -> Result<(), SockDiagError> {
    for (family, any) in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        let mut extensions = ExtensionFlags::SKMEMINFO;
        if with_info {
            extensions |= ExtensionFlags::INFO;
        }
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions,
            states: states.clone(),
            socket_id: any,
        };
        if !dump(request, &mut each)? {
            break;
        }
    }
    Ok(())
}

/// False when `each` has seen enough.
fn dump(
    request: InetRequest,
    each: &mut impl FnMut(TcpSocket) -> bool,
) -> Result<bool, SockDiagError> {
    let socket = ask(request).map_err(SockDiagError::Ask)?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        buffer.clear();
        socket
            .recv(&mut buffer, 0)
            .map_err(SockDiagError::Receive)?;
        let mut rest = buffer.as_slice();
        if rest.is_empty() {
            return Err(SockDiagError::Receive(io::ErrorKind::UnexpectedEof.into()));
        }
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| SockDiagError::Malformed(error.to_string()))?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    let more = each(tcp_socket(&response));
                    if !more {
                        return Ok(false);
                    }
                }
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) => match error.to_io() {
                    // A dump of IPv6 sockets on a kernel without IPv6.
                    error if error.kind() == io::ErrorKind::NotFound => return Ok(true),
                    error => return Err(SockDiagError::Ask(error)),
                },
                NetlinkPayload::Overrun(_) => {
                    return Err(SockDiagError::Receive(io::Error::other("overrun")));
                }
                _ => {}
            }
            // Messages are padded to four bytes; the last one need not be.
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            let step = length
                .max(1)
                .checked_next_multiple_of(4)
                .unwrap_or(usize::MAX);
            rest = rest.get(step..).unwrap_or_default();
        }
    }
}

fn ask(request: InetRequest) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(TIMEOUT_SECONDS))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(
        header,
        NetlinkPayload::from(SockDiagMessage::InetRequest(request)),
    );
    message.finalize();
    // `serialize` panics on a buffer that is too small.
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    Ok(socket)
}

fn tcp_socket(response: &InetResponse) -> TcpSocket {
    let header = &response.header;
    let id = &header.socket_id;
    let mut socket = TcpSocket {
        state: header.state,
        local: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
        remote: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
        recv_queue: header.recv_queue,
        send_queue: header.send_queue,
        uid: header.uid,
        inode: header.inode,
        cookie: u64::from_ne_bytes(id.cookie),
        drops: None,
        info: None,
    };
    for attribute in &response.nlas {
        match attribute {
            Nla::MemInfo(memory) => socket.drops = Some(memory.drops),
            Nla::TcpInfo(bytes) => socket.info = TcpInfo::parse(bytes),
            _ => {}
        }
    }
    socket
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::{StateFlags, TcpInfo, for_each_tcp};

    #[test]
    fn listeners_and_connections_of_this_process_are_listed() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let at = listener.local_addr().unwrap();
            let client = TcpStream::connect(at).unwrap();
            let mut listening = Vec::new();
            for_each_tcp(&StateFlags::LISTEN, false, |s| {
                listening.push(s);
                true
            })
            .unwrap();
            let found = listening.iter().find(|s| s.local == at).unwrap();
            assert_eq!((found.state, found.recv_queue, found.info), (10, 1, None));
            assert!(found.send_queue >= 128, "{found:?}");
            assert_eq!(found.drops, Some(0));
            assert_ne!(found.inode, 0);
            let mut established = None;
            for_each_tcp(&StateFlags::ESTABLISHED, true, |s| {
                if s.remote == at {
                    established = Some(s);
                    return false;
                }
                true
            })
            .unwrap();
            let established = established.unwrap();
            assert_eq!(established.local, client.local_addr().unwrap());
            let info = established.info.unwrap();
            assert!(info.snd_mss > 0 && info.pmtu >= info.snd_mss, "{info:?}");
            assert!(info.busy_us.is_some() && info.sndbuf_limited_us.is_some());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_info_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(TcpInfo::parse(&bytes).is_some(), bytes.len() >= 72);
        }
    }
}
