//! Which files count, in which order: the search path and masking of `sysctl.d(5)`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Directories of `systemd-sysctl`, strongest first. A file in one hides every file of the
/// same name in those after it.
pub(super) const DIRECTORIES: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];

/// Read by procps (`sysctl -p`, `sysctl --system`), by systemd only through a link.
pub(super) const PROCPS_FILE: &str = "/etc/sysctl.conf";

/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Files looked at in one directory.
const MAX_FILES: usize = 1000;
/// Links followed for one file, as the kernel does.
const MAX_LINKS: usize = 40;

/// A file that takes part, or would if it were not hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Path as the machine itself sees it.
    pub(super) path: String,
    /// What it held.
    pub(super) content: Content,
}

/// What a file held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Bytes.
    Bytes(Vec<u8>),
    /// Nothing, or a link to `/dev/null`: it only hides its namesakes.
    Mask,
    /// It could not be read; the reason, in words.
    Unreadable(String),
}

/// The files under `root` that `systemd-sysctl` would read, in the order it reads them,
/// and the paths that lost to a namesake with the path that won.
#[must_use]
pub(super) fn discover(root: &Path) -> (Vec<Source>, Vec<(String, String)>, Vec<Source>) {
    let mut winners: BTreeMap<String, Source> = BTreeMap::new();
    let mut hidden = Vec::new();
    let mut unreadable_directories = Vec::new();
    let mut seen_directories = Vec::new();
    for directory in DIRECTORIES {
        let Ok(real) = resolve(root, Path::new(directory)) else {
            continue;
        };
        // On most machines /lib is a link to /usr/lib: the same directory once more.
        if seen_directories.contains(&real) {
            continue;
        }
        match names(&real) {
            Ok(names) => {
                for name in names {
                    let path = format!("{directory}/{name}");
                    if let Some(winner) = winners.get(&name) {
                        hidden.push((path, winner.path.clone()));
                    } else {
                        let content = read(root, Path::new(&path));
                        winners.insert(name, Source { path, content });
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => unreadable_directories.push(Source {
                path: directory.to_owned(),
                content: Content::Unreadable(error.kind().to_string()),
            }),
        }
        seen_directories.push(real);
    }
    (
        winners.into_values().collect(),
        hidden,
        unreadable_directories,
    )
}

/// The content of one file below `root`, links followed inside `root`.
#[must_use]
pub(super) fn read(root: &Path, path: &Path) -> Content {
    match resolve(root, path) {
        Ok(real) if real == Path::new("/dev/null") => Content::Mask,
        Ok(real) => match read_bounded(&real) {
            Ok(bytes) if bytes.is_empty() => Content::Mask,
            Ok(bytes) => Content::Bytes(bytes),
            Err(error) => Content::Unreadable(describe(&error)),
        },
        Err(error) => Content::Unreadable(describe(&error)),
    }
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "a link to a file that is not there".to_owned(),
        io::ErrorKind::FileTooLarge => format!("larger than {MAX_FILE_BYTES} bytes"),
        kind => kind.to_string(),
    }
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)?.take(MAX_FILES) {
        let name = entry?.file_name();
        if let Some(name) = name.to_str()
            && name.ends_with(".conf")
            && !name.starts_with('.')
            && !name.contains(|c: char| c.is_control())
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Follows links by hand so that an absolute one stays inside `root`. A link that ends in
/// `/dev/null` gives exactly that, whatever the root.
fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut pending: Vec<std::ffi::OsString> = parts(path);
    let mut inside = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = pending.pop() {
        if part == ".." {
            inside.pop();
            continue;
        }
        inside.push(&part);
        if inside == Path::new("/dev/null") && pending.is_empty() {
            return Ok(inside);
        }
        let real = below(root, &inside);
        match fs::symlink_metadata(&real) {
            Ok(meta) if meta.file_type().is_symlink() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::other("too many links"));
                }
                let target = fs::read_link(&real)?;
                // The usual mask; a fixture or a container's root has no /dev of its own.
                if target == Path::new("/dev/null") && pending.is_empty() {
                    return Ok(target);
                }
                inside.pop();
                if target.is_absolute() {
                    inside = PathBuf::from("/");
                }
                pending.extend(parts(&target));
            }
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(below(root, &inside))
}

/// A path's parts, last first.
fn parts(path: &Path) -> Vec<std::ffi::OsString> {
    let mut parts: Vec<_> = path
        .components()
        .filter_map(|c| match c {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    parts.reverse();
    parts
}

fn below(root: &Path, inside: &Path) -> PathBuf {
    root.join(inside.strip_prefix("/").unwrap_or(inside))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // Not blocking: a FIFO left in the directory must not hang the audit.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}
