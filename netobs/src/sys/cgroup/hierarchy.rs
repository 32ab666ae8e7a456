//! A hierarchy of cgroups: where it is mounted, and which number each cgroup has.
//!
//! The number of a cgroup, which sockets and tasks carry in the kernel (`cgroup->kn->id`), is the
//! inode number of its directory on 64-bit machines (fs/kernfs/dir.c, `kernfs_id_ino`, since 5.5).
//! Within a hierarchy it is never given to another one. A cgroup of version 2 cannot be renamed,
//! and those of version 1 that container runtimes make are not.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Workload;
use crate::sys::mountinfo::{self, Mount};

/// The number of the cgroup above all others.
const ROOT: u64 = 1;
/// Cgroups looked at in one walk. A node with a thousand containers has a few thousand.
pub(super) const CGROUP_LIMIT: usize = 65_536;
/// Levels below the mount. The kernel's own limit is `cgroup.max.depth`, none by default.
const DEPTH_LIMIT: usize = 64;
/// Entries of one directory, the kernel's own files included.
const ENTRY_LIMIT: usize = 65_536;

/// Which hierarchy the numbers are of: that of version 2, or the one of version 1 that has this
/// controller.
pub(super) type Controller = Option<&'static str>;

/// A mount of a hierarchy, or of a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// The directory where it can be reached.
    directory: PathBuf,
    /// What of the hierarchy that is; empty for all of it. As the cgroup namespace of this process
    /// shows it, so possibly `/../..`.
    path: String,
    /// The number of the topmost cgroup.
    top: u64,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// All cgroups, those of nobody's included.
    pub(super) found: HashMap<u64, Workload>,
    /// Whether everything was seen, as far as it is mounted.
    pub(super) complete: bool,
}

impl Hierarchy {
    /// Finds where the hierarchy can be reached: all of it if possible, through a mount of this
    /// process or one of process 1, else the parts that are mounted.
    pub(super) fn find(proc_root: &Path, controller: Controller) -> Vec<Self> {
        let kind = controller.map_or("cgroup2", |_| "cgroup");
        let is_of_it = |mount: &Mount| {
            let mut options = mount.options.as_bytes().split(|byte| *byte == b',');
            controller.is_none_or(|name| options.any(|option| option == name.as_bytes()))
        };
        let mut parts: Vec<Self> = Vec::new();
        // In a container the mounts of the host are another list; its files are reached through
        // the root directory of process 1.
        for (process, root) in [("self", None), ("1", Some(proc_root.join("1/root")))] {
            let mountinfo = proc_root.join(process).join("mountinfo");
            for mount in mountinfo::of_type(&mountinfo, kind).filter(is_of_it) {
                let directory = match &root {
                    Some(root) => root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point)),
                    None => mount.point,
                };
                // A mount under another one, or one that may not be entered, is no way in.
                let Ok(metadata) = fs::metadata(&directory) else {
                    continue;
                };
                let path = match mount.root.to_string_lossy() {
                    root if root == "/" => String::new(),
                    root => root.into_owned(),
                };
                let part = Self {
                    directory,
                    path,
                    top: metadata.ino(),
                };
                if part.is_whole() {
                    let path = String::new();
                    return vec![Self { path, ..part }];
                }
                if !parts.iter().any(|known| known.top == part.top) {
                    parts.push(part);
                }
            }
        }
        parts
    }

    /// Whether every cgroup is below it.
    pub(super) fn is_whole(&self) -> bool {
        self.top == ROOT
    }

    /// Directories of tests have other numbers.
    #[cfg(test)]
    pub(super) fn pretend_whole(&mut self) {
        self.top = ROOT;
    }

    /// The number of the cgroup with this path, as `/proc/PID/cgroup` has it.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        // Both paths are as this process' cgroup namespace shows them. What is above that, only a
        // walk finds.
        let below = path.strip_prefix(self.path.as_str())?;
        if !(below.is_empty() || below.starts_with('/'))
            || below.split('/').any(|name| name == "..")
        {
            return None;
        }
        let directory = self.directory.join(below.trim_start_matches('/'));
        Some(fs::metadata(directory).ok()?.ino())
    }

    /// Visits every cgroup below, and adds it to `walk`. The number comes with the entry of the
    /// directory above, so a visit costs no more than a list of each directory.
    pub(super) fn walk(&self, walk: &mut Walk, limit: usize) {
        let mut ahead = vec![(self.top, self.directory.clone(), self.path.clone(), 0)];
        walk.complete = true;
        while let Some((number, directory, path, depth)) = ahead.pop() {
            if walk.found.len() >= limit {
                walk.complete = false;
                return;
            }
            walk.found.insert(number, Workload::from_cgroup_path(&path));
            // One that was removed in between has nothing below it.
            let Ok(entries) = fs::read_dir(&directory) else {
                walk.complete &= depth > 0;
                continue;
            };
            for entry in entries.take(ENTRY_LIMIT).map_while(Result::ok) {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if depth == DEPTH_LIMIT || walk.found.len() + ahead.len() >= limit {
                    walk.complete = false;
                    break;
                }
                let name = entry.file_name();
                let name = String::from_utf8_lossy(name.as_bytes());
                let path = format!("{path}/{name}");
                ahead.push((entry.ino(), entry.path(), path, depth + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cgroup::legacy_controller;

    const ID: &str = "3e4b1c0ff5a9d2778696a5b4c3d2e1f00123456789abcdef0123456789abcdef";

    fn mounted(root: &Path, process: &str, lines: &[(&str, &Path)]) {
        let folder = root.join(process);
        fs::create_dir_all(&folder).unwrap();
        let text: String = lines
            .iter()
            .map(|(path, point)| {
                let point = point.display();
                format!("41 31 0:38 {path} {point} rw - cgroup2 cgroup2 rw\n")
            })
            .collect();
        fs::write(folder.join("mountinfo"), text).unwrap();
    }

    fn part(directory: &Path, path: &str) -> Hierarchy {
        Hierarchy {
            directory: directory.to_owned(),
            path: path.to_owned(),
            top: fs::metadata(directory).unwrap().ino(),
        }
    }

    #[test]
    fn parts_are_found_once_each() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("1/root/two"));
        fs::create_dir_all(&one).unwrap();
        fs::create_dir_all(&two).unwrap();
        let gone = dir.path().join("gone");
        mounted(
            dir.path(),
            "self",
            &[("/", &one), ("/", &gone), ("/", &one)],
        );
        mounted(dir.path(), "1", &[("/../..", Path::new("/two"))]);
        assert_eq!(
            Hierarchy::find(dir.path(), None),
            [part(&one, ""), part(&two, "/../..")]
        );
        assert!(Hierarchy::find(dir.path(), Some("memory")).is_empty());
        assert!(Hierarchy::find(&gone, None).is_empty());
        let text = format!(
            "32 31 0:29 / {one} rw - cgroup cgroup rw,cpu,cpuacct\n\
             33 31 0:30 / {two} rw - cgroup none rw,memory\n",
            one = one.display(),
            two = two.display()
        );
        fs::write(dir.path().join("self/mountinfo"), text).unwrap();
        assert_eq!(
            Hierarchy::find(dir.path(), Some("memory")),
            [part(&two, "")]
        );
    }

    #[test]
    fn this_machines_own_is_whole() {
        let proc_root = Path::new("/proc");
        let found = Hierarchy::find(proc_root, legacy_controller(proc_root));
        let [whole] = &found[..] else {
            // A container without the right to look at process 1.
            assert!(found.iter().all(|part| !part.is_whole()));
            return;
        };
        assert!(whole.is_whole());
        let mut walk = Walk::default();
        whole.walk(&mut walk, CGROUP_LIMIT);
        assert!(walk.complete);
        assert_eq!(walk.found.get(&ROOT), Some(&Workload::default()));
        assert_eq!(whole.number("/"), Some(ROOT));
    }

    #[test]
    fn a_walk_numbers_every_cgroup() {
        let dir = tempfile::tempdir().unwrap();
        let container = dir.path().join(format!("docker-{ID}.scope"));
        let nested = container.join("init.scope");
        fs::create_dir_all(&nested).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        let part = part(dir.path(), "/../system.slice");
        let mut walk = Walk::default();
        part.walk(&mut walk, CGROUP_LIMIT);
        assert!(walk.complete);
        assert_eq!(walk.found.len(), 3);
        let wanted = Workload::from_cgroup_path(&format!("/docker-{ID}.scope"));
        assert!(!wanted.is_empty());
        for directory in [&container, &nested] {
            let number = fs::metadata(directory).unwrap().ino();
            assert_eq!(walk.found[&number], wanted);
        }
        let scope = format!("/../system.slice/docker-{ID}.scope");
        let number = fs::metadata(&container).unwrap().ino();
        assert_eq!(part.number(&scope), Some(number));
        for elsewhere in [
            "/",
            "/../system.sliced",
            "/../system.slice/../x",
            "/../system.slice/no",
        ] {
            assert_eq!(part.number(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn a_walk_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..50 {
            fs::create_dir(dir.path().join(number.to_string())).unwrap();
        }
        let mut walk = Walk::default();
        part(dir.path(), "").walk(&mut walk, 20);
        assert!(!walk.complete);
        assert_eq!(walk.found.len(), 20);

        let deep: PathBuf = std::iter::repeat_n("d", DEPTH_LIMIT + 10).collect();
        fs::create_dir_all(dir.path().join(deep)).unwrap();
        let mut walk = Walk::default();
        part(dir.path(), "").walk(&mut walk, CGROUP_LIMIT);
        assert!(!walk.complete);
        assert_eq!(walk.found.len(), 50 + DEPTH_LIMIT + 1);
    }
}
