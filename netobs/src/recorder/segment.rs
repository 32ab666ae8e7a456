//! A segment: one file, a header that says what it takes to understand it, and blocks.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use netobs_common::event::EventKind;
use serde::{Deserialize, Serialize};

use super::{ReadError, block::BlockHeader, block::MAGIC as BLOCK_MAGIC};

/// Begins every segment.
const MAGIC: [u8; 8] = *b"NETOBSR\n";
/// The form of segments and blocks; it changes when an older reader would misunderstand.
pub(super) const FORM: u32 = 1;
/// Most bytes of the header's text.
const MOST_HEADER: u32 = 64 * 1024;
/// Most bytes of one segment that are read: far more than is ever written.
const MOST_SEGMENT: u64 = 4 << 30;
/// Ending of segment files.
const ENDING: &str = ".netobs";

/// What a segment says of itself, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// See [`FORM`].
    pub(super) form: u32,
    /// The version of netobs that wrote it.
    pub(super) netobs: String,
    /// The kernel's number of its boot: monotonic times mean something within one only.
    pub(super) boot_id: String,
    /// `little` or `big`: the byte order of events.
    pub(super) byte_order: String,
    /// The run of the recorder: when it began, wall-clock ns.
    pub(super) run: u64,
    /// The kinds of events, as numbers in them.
    pub(super) kinds: Vec<Kind>,
}

/// A kind of event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kind {
    number: u32,
    name: String,
    size: usize,
}

/// This machine's byte order.
const BYTE_ORDER: &str = if cfg!(target_endian = "little") {
    "little"
} else {
    "big"
};

impl About {
    /// Of a segment written now.
    pub(super) fn now(run: u64, boot_id: String) -> Self {
        let kind = |kind: &EventKind| Kind {
            number: *kind as u32,
            name: kind.name().to_owned(),
            size: kind.size(),
        };
        Self {
            form: FORM,
            netobs: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id,
            byte_order: BYTE_ORDER.to_owned(),
            run,
            kinds: EventKind::ALL.iter().map(kind).collect(),
        }
    }

    /// The bytes that a segment begins with.
    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&text).to_le_bytes());
        bytes.extend_from_slice(&text);
        Ok(bytes)
    }

    /// The kind that a number in this segment stands for here: the one of the same name and size.
    pub(super) fn kind(&self, number: u32) -> Option<EventKind> {
        let there = self.kinds.iter().find(|kind| kind.number == number)?;
        let same = |kind: &&EventKind| kind.name() == there.name && kind.size() == there.size;
        EventKind::ALL.iter().find(same).copied()
    }
}

/// The file name of a segment.
pub(super) fn name(number: u64) -> String {
    format!("events-{number:010}{ENDING}")
}

/// The number in a segment's file name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("events-")?.strip_suffix(ENDING)?;
    let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| digits.parse().ok())?
}

/// A segment that is being read.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) about: About,
    bytes: Vec<u8>,
    at: usize,
    /// Bytes that are of no whole block.
    pub(super) damaged_bytes: u64,
    /// Whether the file ends in the middle of a block.
    pub(super) torn: bool,
}

impl Segment {
    /// Reads the file into memory: a few megabytes.
    ///
    /// `Ok(None)`: it is so short that even its header is torn.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, ReadError> {
        let failed = |source| ReadError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(MOST_SEGMENT)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        let foreign = || ReadError::Foreign {
            path: path.to_owned(),
        };
        let rest = match bytes.strip_prefix(&MAGIC) {
            Some(rest) => rest,
            None if MAGIC.starts_with(&bytes) => return Ok(None),
            None => return Err(foreign()),
        };
        let Some((lengths, rest)) = rest.split_first_chunk::<8>() else {
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h] = *lengths;
        let length = u32::from_le_bytes([a, b, c, d]);
        let sum = u32::from_le_bytes([e, f, g, h]);
        if length > MOST_HEADER {
            return Err(foreign());
        }
        let Some(text) = rest.get(..length as usize) else {
            return Ok(None);
        };
        if crc32fast::hash(text) != sum {
            return Err(foreign());
        }
        let form = Form::of(text).ok_or_else(foreign)?;
        if form != FORM {
            return Err(ReadError::Form {
                path: path.to_owned(),
                form,
                known: FORM,
            });
        }
        let about: About = serde_json::from_slice(text).map_err(|_| foreign())?;
        if about.byte_order != BYTE_ORDER {
            return Err(ReadError::ByteOrder {
                path: path.to_owned(),
            });
        }
        let at = MAGIC.len() + lengths.len() + text.len();
        Ok(Some(Self {
            about,
            bytes,
            at,
            damaged_bytes: 0,
            torn: false,
        }))
    }

    /// The next whole block: its header and its payload. What is damaged in between is passed over.
    pub(super) fn next_block(&mut self) -> Option<(BlockHeader, &[u8])> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                return None;
            }
            let whole = BlockHeader::read(rest).and_then(|header| {
                let payload = rest
                    .get(size_of::<BlockHeader>()..)?
                    .get(..header.stored())?;
                header.fits(payload).then_some((header, payload.len()))
            });
            if let Some((header, length)) = whole {
                let begin = self.at + size_of::<BlockHeader>();
                self.at = begin + length;
                return Some((header, self.bytes.get(begin..self.at)?));
            }
            // On to what looks like the beginning of the next one.
            let skip = rest
                .windows(BLOCK_MAGIC.len())
                .skip(1)
                .position(|window| window == BLOCK_MAGIC)
                .map_or(rest.len(), |position| position + 1);
            self.torn = skip == rest.len();
            self.damaged_bytes += skip as u64;
            self.at += skip;
        }
    }
}

/// Only the form, which every form has.
#[derive(Deserialize)]
struct Form {
    form: u32,
}

impl Form {
    fn of(text: &[u8]) -> Option<u32> {
        serde_json::from_slice(text).ok().map(|Self { form }| form)
    }
}

/// The segments of a folder with their numbers, oldest first.
pub(super) fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(number);
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort_unstable();
    Ok(found)
}
