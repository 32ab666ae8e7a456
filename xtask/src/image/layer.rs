//! The file system of the image: one gzipped tar that depends on nothing but its contents.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};

use super::layout::Digest;

/// A file of an image or an archive.
pub(crate) struct Entry {
    /// Without a leading slash.
    pub(crate) path: String,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) bytes: Vec<u8>,
}

/// A finished layer.
pub(crate) struct Layer {
    /// The gzipped tar.
    pub(crate) bytes: Vec<u8>,
    /// Of the tar before it was compressed: the configuration names it.
    pub(super) diff_id: Digest,
}

/// Packs files and the folders above them, all of them root's, sorted by path.
///
/// `seconds` (since 1970) is the age of every entry. The gzip header has neither name nor time.
pub(crate) fn pack(mut entries: Vec<Entry>, seconds: u64) -> Result<Layer> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut archive = tar::Builder::new(Vec::new());
    let mut made: Vec<String> = Vec::new();
    for entry in &entries {
        for folder in folders(&entry.path) {
            if !made.contains(&folder) {
                let header = header(tar::EntryType::Directory, 0o755, 0, seconds);
                append(&mut archive, header, &folder, &[])?;
                made.push(folder);
            }
        }
        let size = entry.bytes.len() as u64;
        let header = header(tar::EntryType::Regular, entry.mode, size, seconds);
        append(&mut archive, header, &entry.path, &entry.bytes)?;
    }
    let tar = archive.into_inner().context("failed to end the layer")?;
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(&tar)
        .and_then(|()| gzip.finish())
        .map(|bytes| Layer {
            bytes,
            diff_id: Digest::of(&tar),
        })
        .context("failed to compress the layer")
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    mut header: tar::Header,
    path: &str,
    bytes: &[u8],
) -> Result<()> {
    archive
        .append_data(&mut header, path, bytes)
        .with_context(|| format!("failed to pack {path}"))
}

/// A header in the format that every reader knows, owned by root.
pub(super) fn header(kind: tar::EntryType, mode: u32, size: u64, seconds: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(seconds);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// `a/`, `a/b/` for `a/b/c`.
fn folders(path: &str) -> Vec<String> {
    path.match_indices('/')
        .filter_map(|(at, _)| Some(format!("{}/", path.get(..at)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn entries() -> Vec<Entry> {
        ["b/c/d", "a", "b/c/e"]
            .map(|path| Entry {
                path: path.to_owned(),
                mode: 0o644,
                bytes: path.into(),
            })
            .into()
    }

    #[test]
    fn the_order_given_does_not_matter() -> Result<()> {
        let one = pack(entries(), 7)?;
        let other = pack(entries().into_iter().rev().collect(), 7)?;
        assert_eq!(one.bytes, other.bytes);
        assert_eq!(one.diff_id, other.diff_id);
        assert_ne!(one.diff_id, pack(entries(), 8)?.diff_id);
        Ok(())
    }

    #[test]
    fn folders_come_once_and_before_what_is_in_them() -> Result<()> {
        let layer = pack(entries(), 7)?;
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(layer.bytes.as_slice()).read_to_end(&mut tar)?;
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut paths = Vec::new();
        for entry in archive.entries()? {
            let entry = entry?;
            assert_eq!((entry.header().uid()?, entry.header().mtime()?), (0, 7));
            paths.push(entry.path()?.display().to_string());
        }
        assert_eq!(paths, ["a", "b/", "b/c/", "b/c/d", "b/c/e"]);
        assert_eq!(Digest::of(&tar), layer.diff_id);
        Ok(())
    }
}
