//! BPF iterators: links to a map or to the sockets of a namespace, read like files.
//!
//! aya attaches iterators without parameters only, and consumes the link to read it once; here one
//! link serves many reads, so the three `bpf()` commands are made by hand.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd},
    sync::Arc,
};

use netobs_common::ledger::{ListenerReading, SocketReading};
use thiserror::Error;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::raw;

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
/// `bpf_seq_read` (kernel/bpf/bpf_iter.c) collects up to eight pages for a read.
const LEAST_READ: usize = 32 << 10;
/// `enum bpf_attach_type`.
const BPF_TRACE_ITER: u32 = 28;

/// The members of `union bpf_attr` that `BPF_LINK_CREATE` of an iterator uses.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    padding: u32,
}

/// The members of `union bpf_attr` that `BPF_ITER_CREATE` uses.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// An iterator could not be read.
#[derive(Debug, Error)]
pub enum IterError {
    /// The kernel refused.
    #[error("failed to read the {name} iterator")]
    Read {
        /// Which one.
        name: &'static str,
        /// What the system call returned.
        source: io::Error,
    },
}

/// A command whose answer is a descriptor.
///
/// # Safety
///
/// `attributes` must be what `command` expects.
unsafe fn make<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's contract.
    let fd = unsafe { raw::bpf(command, attributes) }?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn link(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    // `union bpf_iter_link_info` as of 5.9: a map's descriptor.
    let info = map.map(raw::number);
    let attr = LinkCreate {
        prog_fd: raw::number(program),
        target_fd: 0,
        attach_type: BPF_TRACE_ITER,
        flags: 0,
        iter_info: info
            .as_ref()
            .map_or(0, |info| std::ptr::from_ref(info) as u64),
        iter_info_len: if info.is_some() { 4 } else { 0 },
        padding: 0,
    };
    // SAFETY: the attributes of this command; `info` lives until the call returns.
    unsafe { make(BPF_LINK_CREATE, &attr) }
}

fn open(link: BorrowedFd<'_>) -> io::Result<File> {
    // SAFETY: the attributes of this command.
    unsafe {
        make(
            BPF_ITER_CREATE,
            &IterCreate {
                link_fd: raw::number(link),
                flags: 0,
            },
        )
    }
    .map(File::from)
}

/// Readings of every known listener.
pub struct ListenerReadings {
    link: OwnedFd,
    buffer: Vec<u8>,
}

impl ListenerReadings {
    pub(super) fn link(program: impl AsFd, map: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            link: link(program.as_fd(), Some(map))?,
            buffer: Vec::new(),
        })
    }

    /// Reads to the end; returns how many bytes. Not by `read_to_end`, which asks a file for its size and
    /// begins with small reads: the kernel stops and resumes its walk for each.
    fn fill(&mut self) -> io::Result<usize> {
        let mut file = open(self.link.as_fd())?;
        let mut length = 0;
        loop {
            if self.buffer.len() - length < LEAST_READ {
                self.buffer.resize(length + 2 * LEAST_READ, 0);
            }
            let room = self.buffer.get_mut(length..).unwrap_or_default();
            match file.read(room) {
                Ok(0) => return Ok(length),
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads every listener now, in place of what `out` held. Returns whether it is other than that, but
    /// for the time.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; `out` then holds what had been read before.
    pub fn read(&mut self, out: &mut Vec<ListenerReading>) -> Result<bool, IterError> {
        let length = self.fill().map_err(|source| IterError::Read {
            name: "listener",
            source,
        })?;
        let now = self.buffer.get(..length).unwrap_or_default();
        let now = now.chunks_exact(size_of::<ListenerReading>());
        let mut known = out.iter_mut();
        if now.len() == known.len()
            && now
                .clone()
                .all(|bytes| known.next().is_some_and(|known| renew(known, bytes)))
        {
            return Ok(false);
        }
        out.clear();
        out.extend(now.filter_map(|bytes| ListenerReading::read_from_bytes(bytes).ok()));
        Ok(true)
    }
}

/// Puts the time of a new reading in place of an older one's, if it is the only thing that differs.
fn renew(known: &mut ListenerReading, bytes: &[u8]) -> bool {
    let Ok((socket, listener)) = SocketReading::read_from_prefix(bytes) else {
        return false;
    };
    let before = SocketReading {
        ktime_ns: socket.ktime_ns,
        ..known.socket
    };
    let same = before == socket && known.listener.as_bytes() == listener;
    if same {
        known.socket = socket;
    }
    same
}

/// Walks over the TCP sockets of a network namespace and lets the kernel side take note of them.
#[derive(Clone)]
pub struct SocketIter(Arc<OwnedFd>);

impl SocketIter {
    pub(super) fn link(program: impl AsFd) -> io::Result<Self> {
        Ok(Self(Arc::new(link(program.as_fd(), None)?)))
    }

    /// Walks over the sockets of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn walk_this_namespace(&self) -> Result<(), IterError> {
        run(self.0.as_fd(), "socket")
    }
}

/// Lets the kernel side look at every connection that it knows, and forget those whose sockets are gone.
pub struct GoneSockets(OwnedFd);

impl GoneSockets {
    pub(super) fn link(program: impl AsFd, map: BorrowedFd<'_>) -> io::Result<Self> {
        link(program.as_fd(), Some(map)).map(Self)
    }

    /// Goes once over all.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn sweep(&self) -> Result<(), IterError> {
        run(self.0.as_fd(), "connection")
    }
}

/// Runs a program that writes nothing over everything there is.
fn run(link: BorrowedFd<'_>, name: &'static str) -> Result<(), IterError> {
    let mut nothing = [0; 256];
    let mut walk = || -> io::Result<()> {
        let mut file = open(link)?;
        // A read returns at the end, or with EAGAIN after a million elements, to be called again.
        loop {
            match file.read(&mut nothing) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    walk().map_err(|source| IterError::Read { name, source })
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn reading(ktime_ns: u64, drops: u32, enqueued: u64) -> ListenerReading {
        let mut reading = ListenerReading::new_zeroed();
        reading.socket.ktime_ns = ktime_ns;
        reading.socket.drops = drops;
        reading.listener.enqueued = enqueued;
        reading
    }

    #[test]
    fn a_reading_that_differs_by_its_time_only_renews_it() {
        let mut known = reading(1, 7, 3);
        assert!(renew(&mut known, reading(2, 7, 3).as_bytes()));
        assert_eq!(known, reading(2, 7, 3));
    }

    #[test]
    fn a_reading_that_differs_otherwise_leaves_it() {
        let mut known = reading(1, 7, 3);
        assert!(!renew(&mut known, reading(2, 8, 3).as_bytes()));
        assert!(!renew(&mut known, reading(2, 7, 4).as_bytes()));
        let short = reading(2, 7, 3);
        assert!(!renew(&mut known, &short.as_bytes()[..40]));
        assert!(!renew(&mut known, &[]));
        assert_eq!(known, reading(1, 7, 3));
    }
}
