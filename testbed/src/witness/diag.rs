//! Listeners of a namespace, from `sock_diag` (linux/sock_diag.h, linux/inet_diag.h): what `ss -ltm`
//! shows. Needs `inet_diag` and `tcp_diag` in the kernel or as modules.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Ns;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_SKMEMINFO: u16 = 7;
/// Index of `SK_MEMINFO_DROPS`: the socket's `sk_drops`.
const SK_MEMINFO_DROPS: usize = 8;
/// Set of states to ask for: `TCP_LISTEN` is 10.
const LISTENING: u32 = 1 << 10;
/// Sizes of `struct nlmsghdr`, `struct inet_diag_req_v2` and `struct inet_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;
/// Netlink dumps come in buffers of at most 32 KiB.
const BUFFER: usize = 64 * 1024;

/// A listener, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerState {
    /// Inode of the socket's file; 0 when no process has it.
    pub inode: u32,
    /// Local port, host byte order.
    pub port: u16,
    /// `sk_ack_backlog`: connections that wait to be accepted.
    pub queued: u32,
    /// `sk_max_ack_backlog`: the backlog given to `listen`; one more than this fits.
    pub backlog: u32,
    /// `sk_drops`: every packet dropped on behalf of the listener, more than its ListenDrops.
    /// 32 bits in the kernel, so compare with wrapping arithmetic.
    pub drops: u32,
}

/// All TCP listeners of `ns`, IPv4 and IPv6.
///
/// # Errors
/// When the kernel has no TCP diagnostics or sends something malformed.
pub fn listeners(ns: &Ns) -> Result<Vec<ListenerState>> {
    ns.run(|| {
        let mut found = dump(libc::AF_INET)?;
        found.append(&mut dump(libc::AF_INET6)?);
        Ok(found)
    })
}

/// Dumps the listeners of one family of the calling thread's namespace.
fn dump(family: libc::c_int) -> Result<Vec<ListenerState>> {
    let socket = open().context("open a sock_diag socket")?;
    send(&socket, &request(family)?).context("ask sock_diag for listeners")?;
    let mut found = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = receive(&socket, &mut buffer).context("read from sock_diag")?;
        if messages(
            buffer.get(..length).context("an oversized answer")?,
            &mut found,
        )? {
            return Ok(found);
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length are those of a live slice. An unbound netlink socket sends to
    // the kernel.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of a live, exclusively borrowed slice.
    let length = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
        )
    };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

/// A dump request for the listeners of `family`, with their memory information.
fn request(family: libc::c_int) -> Result<Vec<u8>> {
    let length = HEADER + REQUEST;
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).context("netlink flags")?;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&u32::try_from(length)?.to_ne_bytes());
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]); // sequence number, port id
    bytes.push(u8::try_from(family)?);
    bytes.push(u8::try_from(libc::IPPROTO_TCP)?);
    bytes.push(1 << (INET_DIAG_SKMEMINFO - 1)); // idiag_ext
    bytes.push(0);
    bytes.extend_from_slice(&LISTENING.to_ne_bytes());
    bytes.resize(length, 0); // struct inet_diag_sockid: any
    Ok(bytes)
}

/// Takes the messages of one buffer; true after the last of the dump.
fn messages(mut bytes: &[u8], found: &mut Vec<ListenerState>) -> Result<bool> {
    while !bytes.is_empty() {
        let length = usize::try_from(u32_at(bytes, 0)?)?;
        ensure!(length >= HEADER, "a netlink message of {length} bytes");
        let message = bytes.get(..length).context("a truncated netlink message")?;
        let kind = libc::c_int::from(u16_at(message, 4)?);
        if kind == libc::NLMSG_DONE {
            return Ok(true);
        }
        if kind == libc::NLMSG_ERROR {
            let code = u32_at(message, HEADER)?.cast_signed();
            bail!(
                "sock_diag: {}",
                io::Error::from_raw_os_error(code.wrapping_neg())
            );
        }
        found.push(listener(message.get(HEADER..).unwrap_or_default())?);
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// One `struct inet_diag_msg` and its attributes.
fn listener(message: &[u8]) -> Result<ListenerState> {
    let port = message.get(4..6).context("a truncated diag message")?;
    let mut state = ListenerState {
        inode: u32_at(message, 68)?,
        port: u16::from_be_bytes(port.try_into()?),
        queued: u32_at(message, 56)?,
        backlog: u32_at(message, 60)?,
        drops: 0,
    };
    let mut attributes = message.get(MESSAGE..).context("a truncated diag message")?;
    while !attributes.is_empty() {
        let length = usize::from(u16_at(attributes, 0)?);
        ensure!(length >= 4, "a netlink attribute of {length} bytes");
        let attribute = attributes.get(..length).context("a truncated attribute")?;
        if u16_at(attribute, 2)? == INET_DIAG_SKMEMINFO {
            state.drops = u32_at(attribute, 4 + 4 * SK_MEMINFO_DROPS)?;
            return Ok(state);
        }
        attributes = attributes.get(aligned(length)..).unwrap_or_default();
    }
    bail!("the kernel reports no memory information of listeners")
}

/// `NLMSG_ALIGN`.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    let bytes = bytes
        .get(at..at.saturating_add(2))
        .context("a truncated netlink message")?;
    Ok(u16::from_ne_bytes(bytes.try_into()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes
        .get(at..at.saturating_add(4))
        .context("a truncated netlink message")?;
    Ok(u32::from_ne_bytes(bytes.try_into()?))
}
