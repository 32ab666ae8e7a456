//! The interface ioctls that are shorter than a netlink message.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};

/// `struct ethtool_value` of linux/ethtool.h: a command and its one argument.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Device features that [`crate::link::End::set_offload`] switches, by their ethtool command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// TCP segmentation by the device (`ETHTOOL_STSO`).
    Tso,
    /// Segmentation just before the device (`ETHTOOL_SGSO`).
    Gso,
    /// Joining of received segments (`ETHTOOL_SGRO`).
    Gro,
}

impl Offload {
    const fn command(self) -> u32 {
        match self {
            Self::Tso => 0x1f,
            Self::Gso => 0x24,
            Self::Gro => 0x2c,
        }
    }
}

/// A zeroed `struct ifreq` that names `device`.
///
/// # Errors
/// When the name does not fit `IFNAMSIZ` with its terminating zero.
pub(crate) fn request(device: &str) -> Result<libc::ifreq> {
    // SAFETY: ifreq is plain data; all zero bytes are a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        bail!("interface name {device:?} is too long");
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(device.bytes()) {
        // Signed on x86, unsigned on arm64.
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    Ok(request)
}

/// Issues `ioctl(fd, code, request)`.
///
/// # Errors
/// The system call's own.
///
/// # Safety
/// `code` must be one that takes a `struct ifreq` and `request` must hold what `code` reads.
pub(crate) unsafe fn call(
    fd: &impl AsRawFd,
    code: libc::Ioctl,
    request: &mut libc::ifreq,
) -> std::io::Result<()> {
    // SAFETY: the caller vouches for code and content; the pointer is valid for the call.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), code, std::ptr::from_mut(request)) };
    if answer < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Any socket of the calling thread's namespace, for device ioctls.
fn control_socket() -> Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("open a control socket");
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The `IFF_*` flags of `device` in the calling thread's namespace.
///
/// # Errors
/// When the device does not exist.
pub(crate) fn flags(device: &str) -> Result<libc::c_int> {
    let mut request = request(device)?;
    // SAFETY: SIOCGIFFLAGS reads the name and fills the flags of an ifreq.
    unsafe { call(&control_socket()?, libc::SIOCGIFFLAGS, &mut request) }
        .with_context(|| format!("read the flags of {device}"))?;
    // SAFETY: SIOCGIFFLAGS has just filled this member.
    Ok(libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags }))
}

/// Sets `IFF_UP` on `device` in the calling thread's namespace.
///
/// # Errors
/// When the device does not exist or the flags cannot be changed.
pub(crate) fn set_up(device: &str) -> Result<()> {
    let flags = flags(device)? | libc::IFF_UP;
    let mut request = request(device)?;
    // The upper half holds flags that this call does not change.
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags & 0x7fff).context("flags")?;
    // SAFETY: SIOCSIFFLAGS reads the name and the flags of an ifreq.
    unsafe { call(&control_socket()?, libc::SIOCSIFFLAGS, &mut request) }
        .with_context(|| format!("set {device} up"))
}

/// Switches one offload of `device` in the calling thread's namespace.
///
/// # Errors
/// When the device does not exist or refuses the change.
pub(crate) fn set_offload(device: &str, offload: Offload, on: bool) -> Result<()> {
    let socket = control_socket()?;
    let mut request = request(device)?;
    let mut value = EthtoolValue {
        cmd: offload.command(),
        data: u32::from(on),
    };
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    // SAFETY: SIOCETHTOOL reads the name and an ethtool structure through ifr_data, which points
    // to a live `EthtoolValue`: the layout of the three commands above.
    unsafe { call(&socket, libc::SIOCETHTOOL, &mut request) }
        .with_context(|| format!("switch {offload:?} of {device}"))
}
