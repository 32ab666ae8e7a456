//! The mounts that a process sees, from its `mountinfo`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount line holds two paths of at most 4 KiB, each byte escaped fourfold at worst.
const LINE_LIMIT: u64 = 64 << 10;
/// A kernel refuses more mounts than `fs.mount-max`, 100,000 by default.
const MOUNT_LIMIT: usize = 1_000_000;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What of the file system is mounted; `/` when all of it is.
    pub root: OsString,
    /// Where, in the mount namespace of the process.
    pub point: PathBuf,
    /// The options of the file system itself, parted by commas.
    pub options: OsString,
}

/// The mounts of one type of file system in a `mountinfo`, in its order; none when it cannot be
/// read.
pub fn of_type(mountinfo: &Path, kind: &str) -> impl Iterator<Item = Mount> {
    let mut input = File::open(mountinfo).ok().map(BufReader::new);
    let mut line = Vec::new();
    let lines = std::iter::from_fn(move || {
        line.clear();
        let input = input.as_mut()?.by_ref();
        match input.take(LINE_LIMIT).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(mount(line.trim_ascii_end(), kind.as_bytes())),
        }
    });
    lines.take(MOUNT_LIMIT).flatten()
}

/// The mount of a line, if it is of this type.
///
/// The line: `id parent dev root point options [optional...] - type source options`.
fn mount(line: &[u8], kind: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = fields.nth(3)?;
    let point = fields.next()?;
    fields.find(|&field| field == b"-")?;
    if fields.next()? != kind {
        return None;
    }
    let _source = fields.next()?;
    Some(Mount {
        root: unescape(root),
        point: PathBuf::from(unescape(point)),
        options: unescape(fields.next()?),
    })
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
fn unescape(text: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if byte == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(byte));
        rest = if octal.is_some() {
            after.get(3..).unwrap_or_default()
        } else {
            after
        };
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mounts_of_a_type_in_their_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
short line
43 31 0:38 /../.. /mnt/two\\040words rw shared:5 master:1 - cgroup2 none rw";
        fs::write(file.path(), text).unwrap();
        let mount = |root: &str, point: &str| Mount {
            root: root.into(),
            point: point.into(),
            options: "rw".into(),
        };
        assert_eq!(
            of_type(file.path(), "cgroup2").collect::<Vec<_>>(),
            [
                mount("/", "/sys/fs/cgroup/unified"),
                mount("/../..", "/mnt/two words"),
            ]
        );
        assert_eq!(of_type(Path::new("/nonexistent"), "cgroup2").count(), 0);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(
            unescape(b"/a\\040b\\134\\011c\\9\\04"),
            OsString::from("/a b\\\tc\\9\\04")
        );
    }

    proptest! {
        #[test]
        fn any_line_is_a_mount_or_none(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = mount(&line, b"nsfs");
            prop_assert!(unescape(&line).len() <= line.len());
        }
    }
}
