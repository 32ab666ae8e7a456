//! Writes the archive format of initial file systems: cpio, "newc"
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Not compressed: a guest under emulation takes longer to decompress than to copy.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Type bits of `st_mode`.
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const DEVICE: u32 = 0o020_000;

/// An archive that is being written. Folders above an entry are made on the way.
pub(crate) struct Archive<W> {
    target: W,
    inode: u32,
    folders: BTreeSet<PathBuf>,
    written: u64,
}

impl<W: Write> Archive<W> {
    /// An archive without entries.
    pub(crate) fn new(target: W) -> Self {
        Self {
            target,
            inode: 0,
            folders: BTreeSet::new(),
            written: 0,
        }
    }

    /// Adds a folder, and those above it.
    pub(crate) fn folder(&mut self, path: &Path) -> io::Result<()> {
        let path = relative(path);
        let above: Vec<_> = path
            .ancestors()
            .filter(|p| !p.as_os_str().is_empty())
            .collect();
        for folder in above.into_iter().rev() {
            if self.folders.insert(folder.to_path_buf()) {
                self.entry(folder, FOLDER | 0o755, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file that everyone may execute.
    pub(crate) fn file(&mut self, path: &Path, contents: &[u8]) -> io::Result<()> {
        self.parent(path)?;
        self.entry(relative(path), FILE | 0o755, (0, 0), contents)
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &Path, target: &str) -> io::Result<()> {
        self.parent(path)?;
        self.entry(relative(path), LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &Path, major: u32, minor: u32) -> io::Result<()> {
        self.parent(path)?;
        self.entry(relative(path), DEVICE | 0o600, (major, minor), &[])
    }

    /// Ends the archive and gives back what it was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry(Path::new("TRAILER!!!"), 0, (0, 0), &[])?;
        self.target.flush()?;
        Ok(self.target)
    }

    fn parent(&mut self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| self.folder(parent))
    }

    fn entry(
        &mut self,
        path: &Path,
        mode: u32,
        device: (u32, u32),
        contents: &[u8],
    ) -> io::Result<()> {
        let name = path.as_os_str().as_encoded_bytes();
        let too_large = |_| io::Error::new(io::ErrorKind::FileTooLarge, "too large for cpio");
        let size = u32::try_from(contents.len()).map_err(too_large)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_large)?;
        self.inode += 1;
        // Fields: inode, mode, uid, gid, links, time, size, device of the file system (2), device
        // that the entry is (2), length of the name with its zero, checksum.
        let fields = [
            self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        self.put(b"070701")?;
        for field in fields {
            self.put(format!("{field:08X}").as_bytes())?;
        }
        self.put(name)?;
        self.put(&[0])?;
        self.align()?;
        self.put(contents)?;
        self.align()
    }

    fn align(&mut self) -> io::Result<()> {
        while !self.written.is_multiple_of(4) {
            self.put(&[0])?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.target.write_all(bytes)
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Entry {
        name: String,
        mode: u32,
        data: Vec<u8>,
        device: (u32, u32),
    }

    fn entry(name: &str, mode: u32, data: &[u8], device: (u32, u32)) -> Entry {
        Entry {
            name: name.to_owned(),
            mode,
            data: data.to_vec(),
            device,
        }
    }

    fn read(bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let start = at + 6 + 8 * n;
                u32::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16)
                    .unwrap()
            };
            let (size, name_size) = (field(6) as usize, field(11) as usize);
            let name_at = at + 110;
            let name = String::from_utf8(bytes[name_at..name_at + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[name_at + name_size - 1], 0);
            let data_at = (name_at + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(data_at, bytes.len());
                return entries;
            }
            let data = bytes[data_at..data_at + size].to_vec();
            entries.push(Entry {
                name,
                mode: field(1),
                data,
                device: (field(9), field(10)),
            });
            at = (data_at + size).next_multiple_of(4);
        }
    }

    #[test]
    fn entries_read_back() {
        let mut archive = Archive::new(Vec::new());
        archive.file(Path::new("/init"), b"12345").unwrap();
        archive.file(Path::new("/a/b/c"), b"").unwrap();
        archive.link(Path::new("/a/l"), "b/c").unwrap();
        archive.device(Path::new("/dev/console"), 5, 1).unwrap();
        archive.folder(Path::new("/a/b")).unwrap();
        let entries = read(&archive.finish().unwrap());
        let expected = [
            entry("init", 0o100_755, b"12345", (0, 0)),
            entry("a", 0o040_755, b"", (0, 0)),
            entry("a/b", 0o040_755, b"", (0, 0)),
            entry("a/b/c", 0o100_755, b"", (0, 0)),
            entry("a/l", 0o120_777, b"b/c", (0, 0)),
            entry("dev", 0o040_755, b"", (0, 0)),
            entry("dev/console", 0o020_600, b"", (5, 1)),
        ];
        assert_eq!(entries, expected);
    }
}
