//! Whether a setting has changed, as cheaply as can be: nothing tells of a change below `/proc/sys`
//! (inotify does not see what the kernel's own files hold), so they are read again.
//!
//! cost: open, read and close of some fifty small files per namespace; nothing is parsed or kept but
//! one number per namespace.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::audit::keys::{KEYS, Reach};
use crate::audit::value::MAX_VALUE_BYTES;

/// A count, which nobody sets.
const COUNT: &str = "net.netfilter.nf_conntrack_count";
/// All but lists of ports come in one read of this length.
const PIECE: usize = 512;

/// The files to read, and how their content becomes a number.
#[derive(Clone, Debug)]
pub(super) struct Poll {
    /// Settings of every namespace.
    own: Arc<[PathBuf]>,
    /// Those of the node, which only the host's namespace has.
    node: Arc<[PathBuf]>,
    /// Its secret keeps the numbers from telling anything about a `tcp_fastopen_key`.
    hash: RandomState,
}

impl Poll {
    pub(super) fn new(proc: &Path) -> Self {
        let sys = proc.join("sys");
        let paths = |node: bool| {
            KEYS.iter()
                .filter(|key| (key.reach == Reach::Node) == node && key.name != COUNT)
                .map(|key| sys.join(key.path()))
                .collect()
        };
        Self {
            own: paths(false),
            node: paths(true),
            hash: RandomState::new(),
        }
    }

    /// A number that is another one when a setting is, of the calling thread's namespace.
    pub(super) fn print(&self, host: bool) -> u64 {
        let mut hasher = self.hash.build_hasher();
        let node = if host { &self.node[..] } else { &[] };
        for path in self.own.iter().chain(node) {
            // Why it cannot be read is a part of what the audit says.
            match take(path, &mut hasher) {
                Ok(bytes) => hasher.write_usize(bytes),
                Err(error) => hasher.write_i32(error.raw_os_error().unwrap_or(-1)),
            }
        }
        hasher.finish()
    }
}

/// CPU time of the calling thread; no time where the kernel does not tell.
pub(super) fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Feeds a file to the hasher and says how long it was.
fn take(path: &Path, hasher: &mut impl Hasher) -> io::Result<usize> {
    let mut file = File::open(path)?;
    let mut piece = [0; PIECE];
    let mut bytes = 0;
    while bytes <= MAX_VALUE_BYTES {
        let read = file.read(&mut piece)?;
        hasher.write(piece.get(..read).unwrap_or_default());
        bytes += read;
        // The kernel gives all it has: a short read is the last one.
        if read < PIECE {
            break;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Poll;

    #[test]
    fn every_change_is_another_number() {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("sys/net/ipv4");
        fs::create_dir_all(&net).unwrap();
        let poll = Poll::new(dir.path());
        let mut seen = vec![poll.print(true)];
        let mut changed = |what: &str| {
            let now = poll.print(true);
            assert_eq!(now, poll.print(true), "{what}");
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        fs::write(net.join("tcp_timestamps"), "0\n").unwrap();
        changed("it appears");
        fs::write(net.join("tcp_timestamps"), "1\n").unwrap();
        changed("another value");
        fs::rename(net.join("tcp_timestamps"), net.join("tcp_sack")).unwrap();
        changed("the same value under another name");
        let list = "1,".repeat(2000);
        fs::write(net.join("ip_local_reserved_ports"), &list).unwrap();
        changed("a long list");
        fs::write(net.join("ip_local_reserved_ports"), format!("{list}2")).unwrap();
        changed("at its end");
        fs::remove_file(net.join("tcp_sack")).unwrap();
        fs::create_dir(net.join("tcp_sack")).unwrap();
        changed("not to be read");

        // A setting of the node is the host's affair.
        let other = poll.print(false);
        fs::write(net.join("tcp_mem"), "1 2 3").unwrap();
        assert_eq!(poll.print(false), other);
        changed("a setting of the node");
    }
}
