//! A small, checked reader of the kernel's type information.
//!
//! Struct offsets, enum values and prototypes of the running kernel come from here, so that no
//! number is compiled in. The file is `/sys/kernel/btf/vmlinux` (since 5.2, with
//! `CONFIG_DEBUG_INFO_BTF`); its format is `include/uapi/linux/btf.h`.
//!
//! A [`Btf`] holds the whole file (5 to 8 MiB; the kernel's own pages, where it lets them be mapped) and about
//! 1 MiB of index. Ask everything at start,
//! then drop it. All lookups are bounded: chains of references and nesting have a depth limit, a
//! search for a member has a budget, and nothing recurses.

mod bytes;
mod error;
mod member;
mod raw;
mod skeleton;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use self::bytes::Bytes;
pub use self::error::BtfError;
pub use self::member::MemberOffset;
use self::raw::{Kind, Record, Sections};

/// Where the kernel shows its own BTF, below the root of sysfs.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Kernels have 5 to 8 MiB, debug builds some more.
const FILE_LIMIT: u64 = 64 << 20;
/// Chains of typedefs and modifiers in real kernels have a handful of links.
const CHAIN_LIMIT: usize = 64;
/// Types that share one name and kind; a kernel has two or three, of private structs.
const SAME_NAME_LIMIT: usize = 32;

/// The type information of one kernel.
///
/// ```no_run
/// use netobs::sys::btf::{Btf, VMLINUX};
/// let btf = Btf::from_file(VMLINUX.as_ref())?;
/// let net = btf.member_offset("sock.__sk_common.skc_net.net")?;
/// let overflow = btf.enum_value("skb_drop_reason", "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW")?;
/// # Ok::<(), netobs::sys::btf::BtfError>(())
/// ```
#[derive(Debug)]
pub struct Btf {
    data: Bytes,
    sections: Sections,
    /// Place of type `n + 1`.
    offsets: Vec<u32>,
    /// `hash of the name << 32 | type id`, sorted; made at the first lookup by name.
    names: OnceCell<Vec<u64>>,
}

impl Btf {
    /// Takes BTF over and checks that every type record lies inside it.
    ///
    /// # Errors
    /// [`BtfError`] when the bytes are no little-endian BTF of version 1.
    pub fn from_bytes(data: Vec<u8>) -> Result<Self, BtfError> {
        Self::of(Bytes::Read(data))
    }

    fn of(data: Bytes) -> Result<Self, BtfError> {
        let sections = Sections::parse(&data)?;
        let offsets = sections.index(&data)?;
        Ok(Self {
            data,
            sections,
            offsets,
            names: OnceCell::new(),
        })
    }

    /// Reads BTF from a file, usually [`VMLINUX`].
    ///
    /// # Errors
    /// [`BtfError::Read`] when it cannot be read, and those of [`Btf::from_bytes`].
    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        let failed = |source| BtfError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len().min(FILE_LIMIT);
        // The kernel's own never changes, and needs no copy (since 6.16).
        if path == Path::new(VMLINUX)
            && let Ok(length) = usize::try_from(size)
            && let Some(mapped) = Bytes::map(&file, length)
        {
            return Self::of(mapped);
        }
        // One byte more than expected lets the last read see the end without growing the buffer.
        let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
        file.take(FILE_LIMIT + 1)
            .read_to_end(&mut data)
            .map_err(failed)?;
        if u64::try_from(data.len()).is_ok_and(|len| len > FILE_LIMIT) {
            return Err(BtfError::TooLarge { limit: FILE_LIMIT });
        }
        Self::from_bytes(data)
    }

    /// How many types there are, `void` not counted.
    #[must_use]
    pub fn type_count(&self) -> usize {
        self.offsets.len()
    }

    /// The value of one enumerator of a named enum.
    ///
    /// # Errors
    /// [`BtfError::NoType`] or [`BtfError::NoEnumerator`], by what is missing.
    pub fn enum_value(&self, enum_name: &str, enumerator: &str) -> Result<i64, BtfError> {
        let missing = || BtfError::NoEnumerator {
            parent: format!("enum {enum_name}"),
            name: enumerator.to_owned(),
        };
        let mut found = Answer::new(enumerator);
        for record in self.enums_named(enum_name)? {
            for (name, value) in self.enumerators(&record) {
                if name == enumerator.as_bytes() {
                    found.add(value)?;
                }
            }
        }
        found.get().ok_or_else(missing)
    }

    /// All enumerators of a named enum, in the order of declaration; names that are not UTF-8 are
    /// left out.
    ///
    /// # Errors
    /// [`BtfError::NoType`] when there is no such enum.
    pub fn enum_values(&self, enum_name: &str) -> Result<Vec<(String, i64)>, BtfError> {
        let mut values = Vec::new();
        // Copies of one enum in several translation units have the same content.
        if let Some(record) = self.enums_named(enum_name)?.first() {
            values.extend(self.enumerators(record).filter_map(|(name, value)| {
                Some((std::str::from_utf8(name).ok()?.to_owned(), value))
            }));
        }
        Ok(values)
    }

    /// The values of enumerators wherever they are declared, for enums that have no name
    /// (`LINUX_MIB_*` in `include/uapi/linux/snmp.h`); one pass for all of them, in their order.
    ///
    /// # Errors
    /// [`BtfError::NoEnumerator`] naming the first that is missing, [`BtfError::Ambiguous`] when
    /// two enums give one name different values.
    pub fn enumerator_values(&self, wanted: &[&str]) -> Result<Vec<i64>, BtfError> {
        let mut found: HashMap<&[u8], Answer<'_, i64>> = wanted
            .iter()
            .map(|&name| (name.as_bytes(), Answer::new(name)))
            .collect();
        for &at in &self.offsets {
            let Some(at) = usize::try_from(at).ok() else {
                continue;
            };
            let record = self.sections.record(&self.data, at)?;
            if !matches!(record.kind, Kind::Enum | Kind::Enum64) {
                continue;
            }
            for (name, value) in self.enumerators(&record) {
                if let Some(answer) = found.get_mut(name) {
                    answer.add(value)?;
                }
            }
        }
        let value = |&name: &&str| {
            found
                .get(name.as_bytes())
                .and_then(Answer::get)
                .ok_or_else(|| BtfError::NoEnumerator {
                    parent: "the kernel".to_owned(),
                    name: name.to_owned(),
                })
        };
        wanted.iter().map(value).collect()
    }

    /// How many arguments a program on the tracepoint `name` gets: the parameters of
    /// `btf_trace_<name>` without the leading `void *__data`. `None` when the kernel has no such
    /// tracepoint.
    #[must_use]
    pub fn tracepoint_args(&self, name: &str) -> Option<usize> {
        let typedef = format!("btf_trace_{name}");
        let mut found = Answer::new(&typedef);
        for (_, record) in self.named(&typedef, |kind| kind == Kind::Typedef) {
            let (_, pointer) = self.peel(record.size_or_type).ok().flatten()?;
            if pointer.kind == Kind::Pointer {
                let (_, prototype) = self.peel(pointer.size_or_type).ok().flatten()?;
                found
                    .add(self.parameters(&prototype)?.checked_sub(1)?)
                    .ok()?;
            }
        }
        found.get()
    }

    /// Whether the kernel has a function of that name (exported or not, not inlined everywhere).
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        !self.named(name, |kind| kind == Kind::Function).is_empty()
    }

    /// How many parameters a function has. `None` when it is missing, or when several functions of
    /// that name have different numbers of them.
    #[must_use]
    pub fn function_args(&self, name: &str) -> Option<usize> {
        let mut found = Answer::new(name);
        for (_, record) in self.named(name, |kind| kind == Kind::Function) {
            let (_, prototype) = self.peel(record.size_or_type).ok().flatten()?;
            found.add(self.parameters(&prototype)?).ok()?;
        }
        found.get()
    }

    /// The size in bytes of a struct or union.
    ///
    /// # Errors
    /// [`BtfError::NoType`] when it is missing, [`BtfError::Ambiguous`] when several differ.
    pub fn struct_size(&self, name: &str) -> Result<u32, BtfError> {
        let mut found = Answer::new(name);
        for (_, record) in self.named(name, is_aggregate) {
            found.add(record.size_or_type)?;
        }
        found.get().ok_or_else(|| BtfError::NoType {
            what: "struct",
            name: name.to_owned(),
        })
    }

    fn parameters(&self, prototype: &Record<'_>) -> Option<usize> {
        if prototype.kind != Kind::Prototype {
            return None;
        }
        // A last parameter without name and type stands for `...`.
        let variadic = prototype.elements::<2>().last() == Some([0, 0]);
        prototype.count.checked_sub(usize::from(variadic))
    }

    fn enums_named(&self, name: &str) -> Result<Vec<Record<'_>>, BtfError> {
        let found = self.named(name, |kind| matches!(kind, Kind::Enum | Kind::Enum64));
        if found.is_empty() {
            return Err(BtfError::NoType {
                what: "enum",
                name: name.to_owned(),
            });
        }
        Ok(found.into_iter().map(|(_, record)| record).collect())
    }

    /// Names and values of an enum's enumerators; nothing for another type.
    fn enumerators<'a>(&'a self, record: &Record<'a>) -> impl Iterator<Item = (&'a [u8], i64)> {
        let signed = record.flag;
        let narrow = (record.kind == Kind::Enum).then(|| {
            record.elements::<2>().map(move |[name, value]| {
                // The flag exists since 6.0; without it a negative value of an older kernel reads
                // as a large one. No enum that is asked for has negative values.
                let value = if signed {
                    i64::from(value.cast_signed())
                } else {
                    i64::from(value)
                };
                (name, value)
            })
        });
        let wide = (record.kind == Kind::Enum64).then(|| {
            record.elements::<3>().map(|[name, low, high]| {
                (name, (u64::from(high) << 32 | u64::from(low)).cast_signed())
            })
        });
        let values: Vec<(u32, i64)> = narrow
            .into_iter()
            .flatten()
            .chain(wide.into_iter().flatten())
            .collect();
        values
            .into_iter()
            .filter_map(|(name, value)| Some((self.sections.name(&self.data, name)?, value)))
    }

    /// The record of a type, `None` for `void`.
    fn record(&self, id: u32) -> Result<Option<Record<'_>>, BtfError> {
        let Some(index) = id.checked_sub(1) else {
            return Ok(None);
        };
        let at = usize::try_from(index)
            .ok()
            .and_then(|index| self.offsets.get(index))
            .and_then(|&at| usize::try_from(at).ok())
            .ok_or(BtfError::malformed("type id", 0))?;
        self.sections.record(&self.data, at).map(Some)
    }

    /// The type behind typedefs and modifiers, `None` for `void`.
    fn peel(&self, mut id: u32) -> Result<Option<(u32, Record<'_>)>, BtfError> {
        for _ in 0..CHAIN_LIMIT {
            match self.record(id)? {
                Some(record) if matches!(record.kind, Kind::Typedef | Kind::Modifier) => {
                    id = record.size_or_type;
                }
                other => return Ok(other.map(|record| (id, record))),
            }
        }
        Err(BtfError::malformed("chain of types", 0))
    }

    fn name_of(&self, record: &Record<'_>) -> &[u8] {
        self.sections
            .name(&self.data, record.name_off)
            .unwrap_or_default()
    }

    /// The types of that name and kind, by id; at most [`SAME_NAME_LIMIT`].
    fn named(&self, name: &str, wanted: impl Fn(Kind) -> bool) -> Vec<(u32, Record<'_>)> {
        let names = self.names.get_or_init(|| self.index_names());
        let hash = hash(name.as_bytes());
        let first = names.partition_point(|&entry| entry >> 32 < u64::from(hash));
        names
            .iter()
            .skip(first)
            .take_while(|&&entry| entry >> 32 == u64::from(hash))
            .filter_map(|&entry| {
                let id = u32::try_from(entry & u64::from(u32::MAX)).ok()?;
                let record = self.record(id).ok()??;
                (wanted(record.kind) && self.name_of(&record) == name.as_bytes())
                    .then_some((id, record))
            })
            .take(SAME_NAME_LIMIT)
            .collect()
    }

    fn index_names(&self) -> Vec<u64> {
        let mut names = Vec::with_capacity(self.offsets.len());
        for (id, &at) in (1_u64..).zip(&self.offsets) {
            let label = usize::try_from(at)
                .ok()
                .and_then(|at| self.sections.label(&self.data, at));
            if let Some((name, kind)) = label
                && !name.is_empty()
                && (is_aggregate(kind)
                    || matches!(
                        kind,
                        Kind::Enum | Kind::Enum64 | Kind::Typedef | Kind::Function
                    ))
            {
                names.push(u64::from(hash(name)) << 32 | id);
            }
        }
        names.sort_unstable();
        names
    }
}

fn is_aggregate(kind: Kind) -> bool {
    matches!(kind, Kind::Struct | Kind::Union)
}

/// FNV-1a: short names, and a collision only costs a comparison.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// One answer from possibly several types of the same name: they must agree.
struct Answer<'a, T> {
    name: &'a str,
    value: Option<T>,
}

impl<'a, T: Copy + PartialEq> Answer<'a, T> {
    fn new(name: &'a str) -> Self {
        Self { name, value: None }
    }

    fn add(&mut self, value: T) -> Result<(), BtfError> {
        match self.value {
            Some(known) if known != value => Err(BtfError::Ambiguous {
                name: self.name.to_owned(),
            }),
            _ => {
                self.value = Some(value);
                Ok(())
            }
        }
    }

    fn get(&self) -> Option<T> {
        self.value
    }
}
