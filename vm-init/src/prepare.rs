//! Makes a bare kernel into something that tests can run on.
//!
//! Nothing here stops the guest: what failed is told to the host, and the tests that need it fail.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

/// File systems in the order in which they can be mounted: type, target, options.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", ""),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/run", "mode=0755"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("bpf", "/sys/fs/bpf", "mode=0700"),
    ("tracefs", "/sys/kernel/tracing", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("securityfs", "/sys/kernel/security", ""),
];

/// Mounts the kernel's file systems; returns what failed.
pub(crate) fn mounts() -> Vec<String> {
    let mut faults = Vec::new();
    for (kind, target, options) in MOUNTS {
        // Targets below /sys exist already, or the kernel lacks the feature and mount says so.
        let _ = fs::create_dir_all(target);
        let options = Some(*options).filter(|options| !options.is_empty());
        match mount(Some(*kind), *target, Some(*kind), MsFlags::empty(), options) {
            // devtmpfs may have been mounted by the kernel.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => faults.push(format!("failed to mount {kind} on {target}: {error}")),
        }
    }
    faults
}

/// The kernel's release.
pub(crate) fn release() -> anyhow::Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("failed to read the kernel's release")?;
    Ok(release.trim().to_owned())
}

/// Moves the clock to `epoch` when it is behind it: a machine without a clock starts in 1970.
pub(crate) fn clock(epoch: u64) -> Option<String> {
    let wanted = Duration::from_secs(epoch);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    if now >= wanted {
        return None;
    }
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(wanted))
        .err()
        .map(|error| format!("failed to set the clock: {error}"))
}

/// Loads module files in the given order; returns what failed.
pub(crate) fn modules(paths: &[String]) -> Vec<String> {
    paths
        .iter()
        .filter_map(|path| load(path).err().map(|error| format!("{error:#}")))
        .collect()
}

fn load(path: &str) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("failed to open module {path}"))?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error).with_context(|| format!("failed to load module {path}")),
    }
    // The file is in memory: the guest has better use for it.
    fs::remove_file(path).with_context(|| format!("failed to remove module file {path}"))
}

nix::ioctl_read_bad!(get_flags, nix::libc::SIOCGIFFLAGS, nix::libc::ifreq);
nix::ioctl_write_ptr_bad!(set_flags, nix::libc::SIOCSIFFLAGS, nix::libc::ifreq);

/// Sets `lo` up; returns what failed.
pub(crate) fn loopback() -> Option<String> {
    set_loopback_up()
        .err()
        .map(|error| format!("failed to set lo up: {error}"))
}

fn set_loopback_up() -> nix::Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is a plain C structure of integers, for which all zeroes is a value.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = nix::libc::c_char::from_ne_bytes([*from]);
    }
    // SAFETY: the request is a live ifreq whose name is terminated; the kernel writes its flags.
    unsafe { get_flags(socket.as_raw_fd(), &raw mut request) }?;
    // SAFETY: SIOCGIFFLAGS has just written this member of the union, which is a short.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let up = nix::libc::c_short::try_from(nix::libc::IFF_UP).map_err(|_| Errno::EOVERFLOW)?;
    request.ifr_ifru.ifru_flags = flags | up;
    // SAFETY: the request is a live ifreq with a name and flags, which the kernel only reads.
    unsafe { set_flags(socket.as_raw_fd(), &raw const request) }?;
    Ok(())
}
