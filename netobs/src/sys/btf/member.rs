//! Where a member lies: paths through nested and anonymous structs.

use super::raw::{Kind, Record};
use super::{Answer, Btf, BtfError, CHAIN_LIMIT, is_aggregate};

/// Members looked at for one segment of a path; the largest struct of the kernel, with everything
/// anonymous in it, has some hundreds.
const MEMBER_BUDGET: usize = 1 << 16;
/// Anonymous structs and unions inside each other.
const NESTING_LIMIT: usize = 16;
/// Segments in a path.
const SEGMENT_LIMIT: usize = 16;
/// `BTF_INT_BITS` of an `int` that fills its bytes is eight times its size.
const BITS_PER_BYTE: u64 = 8;

/// The place of a member in its struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberOffset {
    /// Bytes from the start of the outermost struct. For a bitfield, the byte with its first bit.
    pub byte: u32,
    /// For a bitfield: the shift within that byte, and the width in bits (it may reach into the
    /// bytes that follow when shift + width > 8). `None` for a member that fills its bytes.
    pub bit: Option<(u8, u8)>,
    /// Size in bytes of the member's type (for a bitfield, of the integer it was declared with;
    /// for an array, of all elements), so that a reader can refuse a width it was not written for.
    pub size: u32,
}

/// A member found in a struct: its type, its first bit, and its width if it is a bitfield.
struct Found {
    type_id: u32,
    bits: u64,
    width: u32,
}

impl Btf {
    /// Where a member lies, by a path such as `sock.__sk_common.skc_net.net`: a struct or union,
    /// then members through nested structs. Anonymous structs and unions in between are not named,
    /// and typedefs and qualifiers do not count. The last member may be of any type.
    ///
    /// # Errors
    /// [`BtfError::NoType`] and [`BtfError::NoMember`] name what is missing;
    /// [`BtfError::NotTraversable`] says that a pointer or an array stands in the middle;
    /// [`BtfError::Ambiguous`] that several structs of that name disagree.
    pub fn member_offset(&self, path: &str) -> Result<MemberOffset, BtfError> {
        let bad = || BtfError::BadPath {
            path: path.to_owned(),
        };
        let mut segments = path.split('.');
        let outer = segments
            .next()
            .filter(|name| !name.is_empty())
            .ok_or_else(bad)?;
        let members: Vec<&str> = segments.collect();
        if members.is_empty() || members.len() > SEGMENT_LIMIT || members.contains(&"") {
            return Err(bad());
        }
        let mut answer = Answer::new(path);
        let mut missing = BtfError::NoType {
            what: "struct",
            name: outer.to_owned(),
        };
        for (id, _) in self.named(outer, is_aggregate) {
            match self.walk(id, outer, &members) {
                Ok(offset) => answer.add(offset)?,
                Err(error) => missing = error,
            }
        }
        answer.get().ok_or(missing)
    }

    /// Follows `members` from the struct `id`, which is called `path` in messages.
    fn walk(&self, id: u32, path: &str, members: &[&str]) -> Result<MemberOffset, BtfError> {
        let out_of_range = || BtfError::malformed("member offset", 0);
        let mut path = path.to_owned();
        let mut at = Found {
            type_id: id,
            bits: 0,
            width: 0,
        };
        let mut outer_size = None;
        for &member in members {
            let (id, parent) = match self.peel(at.type_id)? {
                Some((id, record)) if is_aggregate(record.kind) => (id, record),
                other => {
                    let what = match other.map(|(_, record)| record.kind) {
                        Some(Kind::Pointer) => "a pointer",
                        Some(Kind::Array) => "an array",
                        _ => "not a struct or union",
                    };
                    let member = member.to_owned();
                    return Err(BtfError::NotTraversable { path, what, member });
                }
            };
            outer_size.get_or_insert(parent.size_or_type);
            let found = self.find(id, member)?.ok_or_else(|| BtfError::NoMember {
                parent: self.describe(&parent, &path),
                member: member.to_owned(),
            })?;
            let bits = at.bits.checked_add(found.bits).ok_or_else(out_of_range)?;
            at = Found { bits, ..found };
            path.push('.');
            path.push_str(member);
        }
        let offset = self.place(&at)?;
        // The last bytes must lie inside the struct; a flexible array has none.
        let end = match offset.bit {
            Some((shift, width)) => u64::from(shift) + u64::from(width),
            None => u64::from(offset.size) * BITS_PER_BYTE,
        };
        let limit = u64::from(outer_size.unwrap_or(0)) * BITS_PER_BYTE;
        if u64::from(offset.byte) * BITS_PER_BYTE + end > limit {
            return Err(out_of_range());
        }
        Ok(offset)
    }

    /// Looks for a member of that name in a struct and in the anonymous structs inside it.
    fn find(&self, id: u32, member: &str) -> Result<Option<Found>, BtfError> {
        let mut budget = MEMBER_BUDGET;
        // Structs to look into: their type, where they start, how deep they are nested.
        let mut queue = vec![(id, 0_u64, 0_usize)];
        while let Some((id, start, depth)) = queue.pop() {
            let Some(record) = self.record(id)? else {
                continue;
            };
            for [name, type_id, offset] in record.elements::<3>() {
                budget = budget
                    .checked_sub(1)
                    .ok_or(BtfError::malformed("struct nesting", 0))?;
                let (offset, width) = if record.flag {
                    (offset & 0x00ff_ffff, offset >> 24)
                } else {
                    (offset, 0)
                };
                let bits = start
                    .checked_add(u64::from(offset))
                    .ok_or(BtfError::malformed("member offset", 0))?;
                let name = self
                    .sections
                    .name(&self.data, name)
                    .ok_or(BtfError::malformed("name", 0))?;
                if name == member.as_bytes() {
                    return Ok(Some(Found {
                        type_id,
                        bits,
                        width,
                    }));
                }
                if name.is_empty()
                    && depth < NESTING_LIMIT
                    && let Some((inner, _)) = self
                        .peel(type_id)?
                        .filter(|(_, record)| is_aggregate(record.kind))
                {
                    queue.push((inner, bits, depth + 1));
                }
            }
        }
        Ok(None)
    }

    fn place(&self, found: &Found) -> Result<MemberOffset, BtfError> {
        let bad = || BtfError::malformed("member offset", 0);
        let size = self.size_of(found.type_id)?;
        let (mut bits, mut width) = (found.bits, found.width);
        // Before the kind flag (4.20) a bitfield was an `int` type with fewer bits than it has
        // bytes for, starting at an offset of its own.
        if width == 0
            && let Some((_, record)) = self.peel(found.type_id)?
            && record.kind == Kind::Int
        {
            let encoding = record.word(0).ok_or_else(bad)?;
            let (shift, narrow) = ((encoding >> 16) & 0xff, encoding & 0xff);
            if u64::from(narrow) != u64::from(size) * BITS_PER_BYTE {
                bits = bits.checked_add(u64::from(shift)).ok_or_else(bad)?;
                width = narrow;
            }
        }
        let byte = u32::try_from(bits / BITS_PER_BYTE).map_err(|_| bad())?;
        let shift = u8::try_from(bits % BITS_PER_BYTE).map_err(|_| bad())?;
        let bit = match u8::try_from(width).map_err(|_| bad())? {
            0 if shift == 0 => None,
            0 => return Err(bad()),
            width => Some((shift, width)),
        };
        Ok(MemberOffset { byte, bit, size })
    }

    /// The size in bytes of any type that a member can have.
    fn size_of(&self, id: u32) -> Result<u32, BtfError> {
        let bad = || BtfError::malformed("type of a member", 0);
        let mut id = id;
        let mut elements = 1_u32;
        // Arrays of arrays are the only nesting here.
        for _ in 0..CHAIN_LIMIT {
            let (_, record) = self.peel(id)?.ok_or_else(bad)?;
            let size = match record.kind {
                Kind::Int
                | Kind::Float
                | Kind::Enum
                | Kind::Enum64
                | Kind::Struct
                | Kind::Union => record.size_or_type,
                // Only 64-bit kernels are supported, and only they are asked.
                Kind::Pointer => 8,
                Kind::Array => {
                    let count = record.word(2).ok_or_else(bad)?;
                    elements = elements.checked_mul(count).ok_or_else(bad)?;
                    id = record.word(0).ok_or_else(bad)?;
                    continue;
                }
                _ => return Err(bad()),
            };
            return size.checked_mul(elements).ok_or_else(bad);
        }
        Err(bad())
    }

    /// How a message calls a struct: by its name, or by the path that led to it.
    fn describe(&self, record: &Record<'_>, path: &str) -> String {
        let keyword = if record.kind == Kind::Union {
            "union"
        } else {
            "struct"
        };
        match self.name_of(record) {
            b"" => path.to_owned(),
            name => format!("{keyword} {}", String::from_utf8_lossy(name)),
        }
    }
}
