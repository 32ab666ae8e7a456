//! Finding all network namespaces that have a process or a mount.
//!
//! What has neither cannot be found this way: a namespace held only by an open file descriptor, by
//! a thread other than the first of its process, or by a socket.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Netns, NetnsError, NetnsId, Place};
use crate::sys::mountinfo;

/// The network namespaces of all processes, and those mounted where this process or process 1
/// sees them (`ip netns add`, CNI plugins), by number. One `readlink` per process.
///
/// A process that cannot be looked at (gone, or no `CAP_SYS_PTRACE`) is left out.
///
/// # Errors
/// [`NetnsError::Processes`] when `proc_root` cannot be listed. Mounts that cannot be read are
/// left out.
pub fn discover(proc_root: &Path) -> Result<Vec<Netns>, NetnsError> {
    Finder::default().find(proc_root, Thoroughness::Every)
}

/// Which processes are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thoroughness {
    /// Every one.
    Every,
    /// Those whose number was not there the last time. The others are taken to be in the namespace
    /// they were in, which is nearly always so: a look at a process is a `readlink` that costs more
    /// than anything else that an agent at rest does on a machine with many.
    New,
}

/// Finds namespaces again and again.
#[derive(Debug, Default)]
pub struct Finder {
    /// The processes of the last time.
    processes: HashMap<u32, NetnsId>,
}

impl Finder {
    /// As [`discover`].
    ///
    /// # Errors
    /// As [`discover`].
    pub fn find(
        &mut self,
        proc_root: &Path,
        thoroughness: Thoroughness,
    ) -> Result<Vec<Netns>, NetnsError> {
        let known = std::mem::take(&mut self.processes);
        let known = match thoroughness {
            Thoroughness::Every => HashMap::new(),
            Thoroughness::New => known,
        };
        find(proc_root, &known, &mut self.processes)
    }
}

fn find(
    proc_root: &Path,
    known: &HashMap<u32, NetnsId>,
    seen: &mut HashMap<u32, NetnsId>,
) -> Result<Vec<Netns>, NetnsError> {
    let mut found = BTreeMap::new();
    processes(proc_root, known, seen, &mut found).map_err(|source| NetnsError::Processes {
        path: proc_root.to_owned(),
        source,
    })?;
    mounts(
        &proc_root.join("self/mountinfo"),
        Path::new("/"),
        &mut found,
    );
    // In a container the mounts of the host are another list; its files are reached through the
    // root directory of process 1.
    mounts(
        &proc_root.join("1/mountinfo"),
        &proc_root.join("1/root"),
        &mut found,
    );
    Ok(found.into_values().collect())
}

/// Adds each namespace with the smallest process number in it.
fn processes(
    proc_root: &Path,
    known: &HashMap<u32, NetnsId>,
    seen: &mut HashMap<u32, NetnsId>,
    found: &mut BTreeMap<NetnsId, Netns>,
) -> io::Result<()> {
    let mut path = proc_root.to_owned();
    for entry in fs::read_dir(proc_root)? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let id = known.get(&pid).copied().map_or_else(
            || {
                path.push(&name);
                path.push("ns/net");
                let id = NetnsId::of_link(&path);
                // Two components came with `ns/net`, one with the number.
                path.pop();
                path.pop();
                path.pop();
                id
            },
            Ok,
        );
        let Ok(id) = id else { continue };
        seen.insert(pid, id);
        let netns = found.entry(id).or_insert(Netns {
            id,
            place: Place::Process(pid),
            name: None,
        });
        if matches!(netns.place, Place::Process(known) if pid < known) {
            netns.place = Place::Process(pid);
        }
    }
    Ok(())
}

/// Adds the mounts of a `mountinfo`, whose paths lie below `root`; an unreadable one has none.
fn mounts(mountinfo: &Path, root: &Path, found: &mut BTreeMap<NetnsId, Netns>) {
    for mount in mountinfo::of_type(mountinfo, "nsfs") {
        // What is mounted of this file system is one namespace, of any kind.
        let Some(id) = NetnsId::parse(mount.root.as_bytes()) else {
            continue;
        };
        let point = mount.point;
        let name = point
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let place = || Place::Mount(root.join(point.strip_prefix("/").unwrap_or(&point)));
        let netns = found.entry(id).or_insert_with(|| Netns {
            id,
            place: place(),
            name: None,
        });
        if netns.name.is_none() {
            netns.name = name;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn process(root: &Path, pid: &str, netns: &str) {
        fs::create_dir_all(root.join(pid).join("ns")).unwrap();
        symlink(netns, root.join(pid).join("ns/net")).unwrap();
    }

    #[test]
    fn processes_that_are_known_are_not_looked_at_again() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), "7", "net:[4026531840]");
        let mut finder = Finder::default();
        let mut ids = |thoroughness| {
            let found = finder.find(root.path(), thoroughness).unwrap();
            found.iter().map(|netns| netns.id.0).collect::<Vec<u32>>()
        };
        assert_eq!(ids(Thoroughness::New), [4_026_531_840]);
        // It moves, and a new one comes.
        fs::remove_file(root.path().join("7/ns/net")).unwrap();
        symlink("net:[4026532999]", root.path().join("7/ns/net")).unwrap();
        process(root.path(), "8", "net:[4026532500]");
        assert_eq!(ids(Thoroughness::New), [4_026_531_840, 4_026_532_500]);
        assert_eq!(ids(Thoroughness::Every), [4_026_532_500, 4_026_532_999]);
        // What is gone is forgotten at once.
        fs::remove_dir_all(root.path().join("8")).unwrap();
        assert_eq!(ids(Thoroughness::New), [4_026_532_999]);
    }

    #[test]
    fn processes_and_mounts_make_one_list() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        process(root, "12", "net:[100]");
        process(root, "9", "net:[100]");
        process(root, "30", "net:[100]");
        process(root, "31", "net:[200]");
        process(root, "32", "net:[x]");
        process(root, "notes", "net:[300]");
        fs::create_dir_all(root.join("33")).unwrap();
        fs::create_dir_all(root.join("self")).unwrap();
        fs::create_dir_all(root.join("1")).unwrap();
        let own = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
40 27 0:4 net:[200] /run/netns/blue rw shared:5 master:1 - nsfs nsfs rw
41 27 0:4 net:[400] /run/netns/two\\040words rw - nsfs nsfs rw
42 27 0:4 mnt:[500] /run/mnt rw - nsfs nsfs rw
43 27 0:9 net:[600] /tmp/not rw - ext4 /dev/x rw
";
        fs::write(root.join("self/mountinfo"), own).unwrap();
        let first = "\
50 27 0:4 net:[400] /other/name rw - nsfs nsfs rw
51 27 0:4 net:[700] /run/netns/host rw - nsfs nsfs rw
";
        fs::write(root.join("1/mountinfo"), first).unwrap();
        let netns = |id, place, name: Option<&str>| Netns {
            id: NetnsId(id),
            place,
            name: name.map(str::to_owned),
        };
        assert_eq!(
            discover(root).unwrap(),
            [
                netns(100, Place::Process(9), None),
                netns(200, Place::Process(31), Some("blue")),
                netns(
                    400,
                    Place::Mount("/run/netns/two words".into()),
                    Some("two words")
                ),
                netns(
                    700,
                    Place::Mount(root.join("1/root/run/netns/host")),
                    Some("host")
                ),
            ]
        );
        assert!(matches!(
            discover(&root.join("no")),
            Err(NetnsError::Processes { .. })
        ));
    }

    #[test]
    fn a_number_is_digits_that_fit() {
        assert_eq!(NetnsId::parse(b"net:[+1]"), None);
        assert_eq!(NetnsId::parse(b"net:[4294967296]"), None);
        assert_eq!(NetnsId::parse(b"net:[7]").unwrap().to_string(), "7");
    }
}
