//! Which process holds a socket.
//!
//! A socket belongs to every process that has a descriptor of it; the smallest process number is
//! usually the one that called `listen`. The walk costs a `readlink` per open descriptor of the
//! machine: it is for start-up and for diagnosis, not for each event.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Descriptors looked at in one walk, as a bound; `fs.nr_open` is a million per process.
const DESCRIPTOR_LIMIT: usize = 8_000_000;
/// `TASK_COMM_LEN`, with room for the terminator that `/proc` does not show.
const COMM_BYTES: usize = 16;

/// Who holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process, in the numbers of the `/proc` that was read.
    pub pid: u32,
    /// Its name; empty when it was gone before it could be asked.
    pub comm: Comm,
}

/// The walk over all descriptors.
#[derive(Debug)]
pub struct SocketOwners;

impl SocketOwners {
    /// Finds the processes that hold the sockets with these inode numbers. When several do, the
    /// smallest process number counts. Ends as soon as all are found.
    ///
    /// A socket without an entry is held by a process that may not be looked at (other users':
    /// `CAP_SYS_PTRACE`), by one outside this pid namespace, or by none (the kernel's own).
    ///
    /// # Errors
    /// When `proc_root` cannot be listed. Processes that go away meanwhile are no error.
    pub fn scan(proc_root: &Path, wanted: &HashSet<u64>) -> io::Result<HashMap<u64, Owner>> {
        let mut found = HashMap::with_capacity(wanted.len());
        if wanted.is_empty() {
            return Ok(found);
        }
        let mut budget = DESCRIPTOR_LIMIT;
        let mut path = proc_root.to_owned();
        for pid in processes(proc_root)? {
            path.push(pid.to_string());
            path.push("fd");
            let mut comm = None;
            for entry in fs::read_dir(&path)
                .into_iter()
                .flatten()
                .map_while(Result::ok)
            {
                let Some(left) = budget.checked_sub(1) else {
                    return Ok(found);
                };
                budget = left;
                path.push(entry.file_name());
                let target = fs::read_link(&path);
                path.pop();
                let socket = target
                    .ok()
                    .and_then(|target| socket_inode(target.as_os_str()));
                if let Some(inode) = socket.filter(|inode| wanted.contains(inode)) {
                    let comm = *comm
                        .get_or_insert_with(|| Comm::of_pid(proc_root, pid).unwrap_or_default());
                    found.entry(inode).or_insert(Owner { pid, comm });
                }
            }
            path.pop();
            path.pop();
            if found.len() == wanted.len() {
                break;
            }
        }
        Ok(found)
    }
}

/// All process numbers, ascending.
fn processes(proc_root: &Path) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(proc_root)? {
        pids.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok()),
        );
    }
    pids.sort_unstable();
    Ok(pids)
}

/// Takes the number out of `socket:[123]`.
fn socket_inode(target: &OsStr) -> Option<u64> {
    let digits = target
        .as_bytes()
        .strip_prefix(b"socket:[")?
        .strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The name of a task: at most 16 bytes, chosen by the task itself, so of any content.
///
/// It prints as text that is safe in a label or on a terminal, and without loss: what is not
/// printable UTF-8, and the backslash, is written as `\xNN`, byte by byte.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Comm {
    bytes: [u8; COMM_BYTES],
    len: u8,
}

impl Comm {
    /// Takes the bytes up to the first NUL, at most 16.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut comm = Self::default();
        let text = bytes.iter().copied().take_while(|&byte| byte != 0);
        for (slot, byte) in comm.bytes.iter_mut().zip(text) {
            *slot = byte;
            comm.len += 1;
        }
        comm
    }

    /// The name of a process' first thread.
    ///
    /// # Errors
    /// When the process is gone, or `/proc` cannot be read.
    pub fn of_pid(proc_root: &Path, pid: u32) -> io::Result<Self> {
        let mut bytes = [0; 64];
        let mut file = File::open(proc_root.join(pid.to_string()).join("comm"))?;
        let len = file.read(&mut bytes)?;
        let text = bytes.get(..len).unwrap_or_default();
        Ok(Self::from_bytes(text.strip_suffix(b"\n").unwrap_or(text)))
    }

    /// As the kernel has it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                if is_printable(character) {
                    fmt::Write::write_char(f, character)?;
                } else {
                    write_escaped(f, character.encode_utf8(&mut [0; 4]).as_bytes())?;
                }
            }
            write_escaped(f, chunk.invalid())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Comm({self})")
    }
}

/// The standard library escapes what does not print: controls, direction marks, unassigned code
/// points, and the quotes, which are harmless here, and the backslash, which is not.
fn is_printable(character: char) -> bool {
    matches!(character, '"' | '\'') || character.escape_debug().len() == 1
}

fn write_escaped(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn process(root: &Path, pid: u32, comm: &[u8], descriptors: &[&str]) {
        let dir = root.join(pid.to_string());
        fs::create_dir_all(dir.join("fd")).unwrap();
        fs::write(dir.join("comm"), comm).unwrap();
        for (number, target) in descriptors.iter().enumerate() {
            symlink(target, dir.join("fd").join(number.to_string())).unwrap();
        }
    }

    #[test]
    fn the_smallest_process_owns_a_shared_socket() {
        let dir = tempfile::tempdir().unwrap();
        process(
            dir.path(),
            20,
            b"worker\n",
            &["socket:[5]", "/dev/null", "socket:[6]"],
        );
        process(
            dir.path(),
            3,
            b"master\n",
            &["pipe:[6]", "socket:[5]", "socket:[x]"],
        );
        fs::create_dir(dir.path().join("1")).unwrap();
        let owners = SocketOwners::scan(dir.path(), &HashSet::from([5, 6, 7])).unwrap();
        assert_eq!(owners.len(), 2);
        assert_eq!(
            owners[&5],
            Owner {
                pid: 3,
                comm: Comm::from_bytes(b"master")
            }
        );
        assert_eq!(
            owners[&6],
            Owner {
                pid: 20,
                comm: Comm::from_bytes(b"worker")
            }
        );
        assert!(
            SocketOwners::scan(dir.path(), &HashSet::new())
                .unwrap()
                .is_empty()
        );
        assert!(SocketOwners::scan(&dir.path().join("no"), &HashSet::from([1])).is_err());
    }

    #[test]
    fn this_process_owns_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&listener)
        );
        let inode = socket_inode(fs::read_link(link).unwrap().as_os_str()).unwrap();
        let owners = SocketOwners::scan(Path::new("/proc"), &HashSet::from([inode])).unwrap();
        let pid = std::process::id();
        let comm = Comm::of_pid(Path::new("/proc"), pid).unwrap();
        assert_eq!(owners[&inode], Owner { pid, comm });
        assert!(!comm.is_empty());
    }

    #[test]
    fn names_print_safely_and_without_loss() {
        let shown = |bytes: &[u8]| Comm::from_bytes(bytes).to_string();
        assert_eq!(shown(b"kworker/0:1"), "kworker/0:1");
        assert_eq!(shown(b"it's \"x\""), "it's \"x\"");
        assert_eq!(shown(b"a\nb\x1b\\"), "a\\x0ab\\x1b\\x5c");
        assert_eq!(shown("gr\u{fc}n".as_bytes()), "gr\u{fc}n");
        assert_eq!(shown(b"\xff\xc3"), "\\xff\\xc3");
        assert_eq!(shown("\u{202e}x".as_bytes()), "\\xe2\\x80\\xaex");
        assert_eq!(shown(b"cut\0here"), "cut");
        assert_eq!(shown(&[b'x'; 40]).len(), 16);
    }

    proptest! {
        #[test]
        fn different_names_print_differently(
            one in prop::collection::vec(1_u8.., 0..=16),
            other in prop::collection::vec(1_u8.., 0..=16),
        ) {
            let (first, second) = (Comm::from_bytes(&one), Comm::from_bytes(&other));
            prop_assert_eq!(first.as_bytes(), &one[..]);
            prop_assert_eq!(first.to_string() == second.to_string(), one == other);
            prop_assert!(!first.to_string().chars().any(char::is_control));
        }
    }
}
