//! Network namespaces: which there are, and how to look into one.
//!
//! A namespace is named by the inode number of its nsfs file, as `ip netns` and `lsns` show it.
//! The number is used again after the namespace is gone, so it is checked at each visit. **No file
//! descriptor of a foreign namespace is ever kept open**: it would keep a dead namespace alive,
//! with its devices and sockets. They are opened for a visit and closed at once.

pub mod cookie;
mod discover;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use self::discover::{Finder, Thoroughness, discover};
pub use self::worker::NetnsWorker;
use super::netstat::{Counters, NetstatError};

/// The inode number of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsId(pub u32);

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl NetnsId {
    /// The namespace of a process' first thread.
    ///
    /// # Errors
    /// What `readlink` says: `NotFound` when the process is gone, `PermissionDenied` without
    /// `CAP_SYS_PTRACE` for the process of another user, `InvalidData` for any other link.
    pub fn of_process(proc_root: &Path, pid: u32) -> io::Result<Self> {
        Self::of_link(&process_file(proc_root, pid))
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// As [`NetnsId::of_process`].
    pub fn of_this_thread(proc_root: &Path) -> io::Result<Self> {
        Self::of_link(&proc_root.join("thread-self/ns/net"))
    }

    fn of_link(path: &Path) -> io::Result<Self> {
        let target = fs::read_link(path)?;
        Self::parse(target.as_os_str().as_bytes()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Takes the number out of `net:[4026531840]`.
    fn parse(text: &[u8]) -> Option<Self> {
        let digits = text.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
        // `u32::from_str` takes a sign.
        digits.first().filter(|byte| byte.is_ascii_digit())?;
        std::str::from_utf8(digits).ok()?.parse().ok().map(Self)
    }
}

/// Where a namespace can be entered or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Through a process in it (by its first thread).
    Process(u32),
    /// Through a mount of its nsfs file, such as `/run/netns/blue`.
    Mount(PathBuf),
}

/// A network namespace that was there when [`discover`] looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    /// Its number.
    pub id: NetnsId,
    /// The way to it. A process is preferred, because its counters can be read from outside.
    pub place: Place,
    /// The file name of its mount, which is the name `ip netns` knows it by. Not for labels as it
    /// is: it is what a user of the machine typed.
    pub name: Option<String>,
}

/// Why a namespace could not be found or visited.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// The list of processes cannot be read.
    #[error("failed to list processes in {}", path.display())]
    Processes {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It does not exist any more, or its place now leads to another one: discover again.
    #[error("network namespace {id} is gone from where it was")]
    Gone {
        /// The namespace.
        id: NetnsId,
    },
    /// The kernel does not allow it.
    #[error("not allowed to {operation} network namespace {id}: it takes {needs}")]
    Permission {
        /// The namespace.
        id: NetnsId,
        /// `open` or `enter`.
        operation: &'static str,
        /// The capability, in the user namespace that owns it.
        needs: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Anything else that went wrong on the way.
    #[error("failed to {operation} network namespace {id}")]
    Io {
        /// The namespace.
        id: NetnsId,
        /// `open` or `enter`.
        operation: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The work itself panicked.
    #[error("the work in network namespace {id} panicked")]
    Panicked {
        /// The namespace.
        id: NetnsId,
    },
    /// The thread for visits could not be started, or does not know its own namespace.
    #[error("failed to start the thread that visits network namespaces")]
    Worker {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is there, its counters cannot be read.
    #[error("failed to read the counters of network namespace {id}")]
    Counters {
        /// The namespace.
        id: NetnsId,
        /// What was wrong with them.
        #[source]
        source: NetstatError,
    },
}

impl NetnsError {
    fn from_io(
        id: NetnsId,
        operation: &'static str,
        needs: &'static str,
        source: io::Error,
    ) -> Self {
        match source.raw_os_error() {
            // EINVAL: the file is no namespace (any more), the process is dying.
            Some(libc::ENOENT | libc::ESRCH | libc::ENOTDIR | libc::EINVAL) => Self::Gone { id },
            Some(libc::EPERM | libc::EACCES) => Self::Permission {
                id,
                operation,
                needs,
                source,
            },
            _ => Self::Io {
                id,
                operation,
                source,
            },
        }
    }
}

/// What a look at a namespace shows.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Its counters.
    pub counters: Counters,
    /// Its [`cookie`], where it had to be entered.
    pub cookie: Option<u64>,
}

/// Reads the counters of a namespace: from outside where a process is in it (no capability
/// needed but `CAP_SYS_PTRACE` for the check), else by a visit.
///
/// # Errors
/// [`NetnsError::Gone`] when the process died, moved to another namespace, or its number now
/// belongs to another process; the others as [`NetnsWorker::run`].
pub fn read_counters(worker: &NetnsWorker, netns: &Netns) -> Result<Reading, NetnsError> {
    let id = netns.id;
    let failed = |source| NetnsError::Counters { id, source };
    let Place::Process(pid) = netns.place else {
        let dir = worker.proc_root().join("thread-self/net");
        let (cookie, counters) = worker.run(netns, move || {
            (cookie::of_this_thread(), Counters::read(&dir))
        })?;
        let counters = counters.map_err(failed)?;
        return Ok(Reading { counters, cookie });
    };
    let dir = worker.proc_root().join(pid.to_string()).join("net");
    let counters = Counters::read(&dir);
    // Looked at afterwards: what was read before the process left was still the right namespace's,
    // and what was read after it cannot pass.
    match NetnsId::of_process(worker.proc_root(), pid) {
        Ok(now) if now == id => Ok(Reading {
            counters: counters.map_err(failed)?,
            cookie: None,
        }),
        Ok(_) => Err(NetnsError::Gone { id }),
        Err(source) => Err(NetnsError::from_io(id, "open", worker::OPEN_NEEDS, source)),
    }
}

fn process_file(proc_root: &Path, pid: u32) -> PathBuf {
    proc_root.join(pid.to_string()).join("ns/net")
}
