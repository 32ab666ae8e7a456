//! The root of the cgroup2 hierarchy: what is attached there sees every container.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Of a table of mounts, as much is read; the longest seen are of some hundred kilobytes.
const LIMIT_BYTES: u64 = 4 << 20;
/// The number of the root's directory; no other has it (kernel: fs/kernfs/dir.c
/// `kernfs_create_root`).
const ROOT_INODE: u64 = 1;

/// The root is not to be seen.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CgroupRootError {
    /// No cgroup2 is mounted where this process or the first one sees it.
    #[error("no cgroup2 hierarchy is mounted")]
    NotMounted,
    /// What is mounted begins below the root, as a container sees it.
    #[error("{0} is only a part of the cgroup2 hierarchy, not its root")]
    NotRoot(PathBuf),
}

/// Finds a directory that is the root: among the mounts of this process, else among those of the
/// first one, which shows the machine's to a container that shares its process ids.
///
/// # Errors
///
/// When there is none, or none that may be looked at.
pub fn find(proc_root: &Path) -> Result<PathBuf, CgroupRootError> {
    let mut part = None;
    let views = [
        ("self/mountinfo", PathBuf::from("/")),
        ("1/mountinfo", proc_root.join("1/root")),
    ];
    for (table, view) in views {
        for place in mounts(&proc_root.join(table)) {
            let inside = place.strip_prefix("/").unwrap_or(&place);
            let path = view.join(inside);
            match fs::metadata(&path).map(|it| it.ino()) {
                Ok(ROOT_INODE) => return Ok(path),
                Ok(_) => part = part.or(Some(path)),
                Err(_) => {} // not for us to see
            }
        }
    }
    Err(part.map_or(CgroupRootError::NotMounted, CgroupRootError::NotRoot))
}

/// Where cgroup2 is mounted, by a table of mounts; what cannot be read has none.
fn mounts(table: &Path) -> Vec<PathBuf> {
    let mut text = String::new();
    let read =
        fs::File::open(table).and_then(|file| file.take(LIMIT_BYTES).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    text.lines().filter_map(cgroup2).collect()
}

/// The place of a mount if it is of type cgroup2 (man 5 proc_pid_mountinfo).
fn cgroup2(line: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    if kind.split(' ').next()? != "cgroup2" {
        return None;
    }
    mount.split(' ').nth(4).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cgroup2_counts() {
        let line = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2(line), Some("/sys/fs/cgroup/unified".into()));
        for other in [
            "33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu",
            "31 24 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755",
            "41 31 0:38 / - cgroup2",
            "- cgroup2",
            "",
        ] {
            assert_eq!(cgroup2(other), None, "{other}");
        }
    }

    #[test]
    fn a_part_of_the_hierarchy_is_not_its_root() {
        let proc = tempfile::tempdir().unwrap();
        let part = tempfile::tempdir().unwrap();
        fs::create_dir(proc.path().join("self")).unwrap();
        assert_eq!(find(proc.path()), Err(CgroupRootError::NotMounted));
        let line = format!("1 2 0:3 / {} rw - cgroup2 x rw\n", part.path().display());
        fs::write(proc.path().join("self/mountinfo"), line).unwrap();
        assert_eq!(
            find(proc.path()),
            Err(CgroupRootError::NotRoot(part.path().to_owned()))
        );
    }
}
