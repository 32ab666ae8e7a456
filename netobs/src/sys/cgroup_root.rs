//! The root of the cgroup2 hierarchy: what is attached there sees every container.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::mountinfo;

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
        for mount in mountinfo::of_type(&proc_root.join(table), "cgroup2") {
            let inside = mount.point.strip_prefix("/").unwrap_or(&mount.point);
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

#[cfg(test)]
mod tests {
    use super::*;

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
