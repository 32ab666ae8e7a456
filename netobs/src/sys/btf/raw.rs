//! The bytes of BTF, checked: header, type records, strings.
//!
//! Format: `include/uapi/linux/btf.h`. Since 7.2 a count may use 24 bits and a kind 7 bits, and a
//! layout section gives the size of kinds that a reader does not know; the wider masks read the
//! older format correctly, because it kept those bits at zero.

use std::ops::Range;

use super::BtfError;

/// `struct btf_type` without what follows it.
const RECORD_BYTES: usize = 12;
/// `KSYM_NAME_LEN`: no kernel identifier is longer. The limit keeps the cost of a missing
/// terminator constant.
const NAME_LIMIT: usize = 512;
/// Up to `str_len`; what newer kernels add comes after.
const HEADER_BYTES: usize = 24;
/// `BTF_MAX_TYPE`.
const MAX_TYPES: usize = 0x000f_ffff;

/// What a type record describes; kinds that are never looked into are [`Kind::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Pointer,
    Array,
    Struct,
    Union,
    Enum,
    Typedef,
    /// `volatile`, `const`, `restrict` or a type tag: transparent for layout.
    Modifier,
    Function,
    Prototype,
    Float,
    Enum64,
    Other,
}

impl Kind {
    fn of(number: u32) -> Self {
        match number {
            1 => Self::Int,
            2 => Self::Pointer,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            8 => Self::Typedef,
            9..=11 | 18 => Self::Modifier,
            12 => Self::Function,
            13 => Self::Prototype,
            16 => Self::Float,
            19 => Self::Enum64,
            _ => Self::Other,
        }
    }
}

/// Bytes after the record proper: a fixed part, and a part per element.
fn known_shape(kind: u32) -> Option<(usize, usize)> {
    Some(match kind {
        1 | 14 | 17 => (4, 0),
        2 | 7..=12 | 16 | 18 => (0, 0),
        3 => (12, 0),
        4 | 5 | 15 | 19 => (0, 12),
        6 | 13 => (0, 8),
        _ => return None,
    })
}

/// One type record, with what follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) name_off: u32,
    pub(super) kind: Kind,
    /// The kind flag: bitfields in a struct, signedness in an enum.
    pub(super) flag: bool,
    /// Bytes of the type, or the id it refers to, by kind.
    pub(super) size_or_type: u32,
    /// Number of elements (members, enumerators, parameters).
    pub(super) count: usize,
    extra: &'a [u8],
}

impl Record<'_> {
    /// The `index`-th little-endian word after the record proper.
    pub(super) fn word(&self, index: usize) -> Option<u32> {
        word_at(self.extra, index.checked_mul(4)?)
    }

    /// The elements as words, `N` words each.
    pub(super) fn elements<const N: usize>(&self) -> impl Iterator<Item = [u32; N]> + '_ {
        self.extra
            .chunks_exact(4 * N)
            .take(self.count)
            .map(|chunk| {
                let mut words = [0; N];
                for (word, bytes) in words.iter_mut().zip(chunk.chunks_exact(4)) {
                    *word = bytes.try_into().map_or(0, u32::from_le_bytes);
                }
                words
            })
    }
}

/// The sections of a BTF file, as ranges of its bytes.
#[derive(Debug)]
pub(super) struct Sections {
    types: Range<usize>,
    strings: Range<usize>,
    layout: Range<usize>,
}

impl Sections {
    /// Checks the header.
    pub(super) fn parse(data: &[u8]) -> Result<Self, BtfError> {
        match data.get(..2) {
            Some([0x9f, 0xeb]) => {}
            Some([0xeb, 0x9f]) => return Err(BtfError::BigEndian),
            _ => return Err(BtfError::NotBtf),
        }
        match data.get(2) {
            Some(1) => {}
            Some(&version) => return Err(BtfError::Version { version }),
            None => return Err(BtfError::malformed("header", 0)),
        }
        let field = |offset| {
            word_at(data, offset)
                .and_then(|word| usize::try_from(word).ok())
                .ok_or(BtfError::malformed("header", offset))
        };
        let header_len = field(4)?;
        if header_len < HEADER_BYTES || header_len > data.len() {
            return Err(BtfError::malformed("header length", 4));
        }
        let section = |at: usize, what| {
            let start = field(at)?.checked_add(header_len);
            let end = start
                .zip(field(at + 4).ok())
                .and_then(|(start, len)| start.checked_add(len));
            match start.zip(end) {
                Some((start, end)) if end <= data.len() => Ok(start..end),
                _ => Err(BtfError::malformed(what, at)),
            }
        };
        let layout = if header_len >= HEADER_BYTES + 8 {
            section(24, "layout section")?
        } else {
            0..0
        };
        Ok(Self {
            types: section(8, "type section")?,
            strings: section(16, "string section")?,
            layout,
        })
    }

    /// The position of every type, the place of type `n + 1` at index `n` (type 0 is `void`).
    pub(super) fn index(&self, data: &[u8]) -> Result<Vec<u32>, BtfError> {
        // A record of the kernel takes 24 bytes on average; the vector grows if that is wrong.
        let mut offsets = Vec::with_capacity((self.types.len() / 24).min(MAX_TYPES));
        let mut at = self.types.start;
        while at < self.types.end {
            let next = self.end_of(data, at)?;
            if offsets.len() == MAX_TYPES {
                return Err(BtfError::malformed("type count", at));
            }
            offsets.push(u32::try_from(at).map_err(|_| BtfError::malformed("type section", at))?);
            at = next;
        }
        Ok(offsets)
    }

    /// Where the record at `at` ends; never beyond the type section, always after `at`.
    fn end_of(&self, data: &[u8], at: usize) -> Result<usize, BtfError> {
        let info = word_at(data, at + 4).ok_or(BtfError::malformed("type record", at))?;
        let number = kind_number(info);
        let (fixed, each) = known_shape(number)
            .or_else(|| self.declared_shape(data, number))
            .ok_or(BtfError::UnknownKind { kind: number, at })?;
        each.checked_mul(count(info))
            .and_then(|bytes| bytes.checked_add(fixed + RECORD_BYTES)?.checked_add(at))
            .filter(|&end| end <= self.types.end)
            .ok_or(BtfError::malformed("type record", at))
    }

    /// The shape of a kind by the layout section: `struct btf_layout`, one per kind.
    fn declared_shape(&self, data: &[u8], kind: u32) -> Option<(usize, usize)> {
        let layout = data.get(self.layout.clone())?;
        let index = usize::try_from(kind).ok()?.checked_mul(4)?;
        // Kind 0 is no type, whatever the section says.
        let entry = layout.get(index..index + 4).filter(|_| kind != 0)?;
        Some((usize::from(*entry.first()?), usize::from(*entry.get(1)?)))
    }

    /// The record that starts at `at`.
    pub(super) fn record<'a>(&self, data: &'a [u8], at: usize) -> Result<Record<'a>, BtfError> {
        let broken = || BtfError::malformed("type record", at);
        let end = self.end_of(data, at)?;
        let info = word_at(data, at + 4).ok_or_else(broken)?;
        Ok(Record {
            name_off: word_at(data, at).ok_or_else(broken)?,
            kind: Kind::of(kind_number(info)),
            flag: info >> 31 == 1,
            size_or_type: word_at(data, at + 8).ok_or_else(broken)?,
            count: count(info),
            extra: data.get(at + RECORD_BYTES..end).ok_or_else(broken)?,
        })
    }

    /// The name and kind of the record at `at`, without checking what follows it.
    pub(super) fn label<'a>(&self, data: &'a [u8], at: usize) -> Option<(&'a [u8], Kind)> {
        let kind = Kind::of(kind_number(word_at(data, at + 4)?));
        Some((self.name(data, word_at(data, at)?)?, kind))
    }

    /// The string at `offset` of the string section; empty for things without a name. `None` when
    /// it lies outside or is longer than any name of the kernel.
    pub(super) fn name<'a>(&self, data: &'a [u8], offset: u32) -> Option<&'a [u8]> {
        let strings = data.get(self.strings.clone())?;
        let tail = strings.get(usize::try_from(offset).ok()?..)?;
        let tail = tail.get(..NAME_LIMIT).unwrap_or(tail);
        tail.get(..tail.iter().position(|&byte| byte == 0)?)
    }
}

fn word_at(data: &[u8], offset: usize) -> Option<u32> {
    let bytes = data.get(offset..offset.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

fn kind_number(info: u32) -> u32 {
    (info >> 24) & 0x7f
}

fn count(info: u32) -> usize {
    usize::try_from(info & 0x00ff_ffff).unwrap_or(usize::MAX)
}
