//! A copy in which a few types are left, under their numbers, for a reader that only asks for
//! numbers by name: a tenth of the bytes, and of what a reader makes of them.

use super::Btf;
use super::raw::Kind;

/// `struct btf_header` up to `str_len`.
const HEADER_BYTES: u32 = 24;
const MAGIC: u16 = 0xeb9f;
/// `BTF_KIND_FWD` without a name, in the place of every other type: it has nothing behind it.
const PLACEHOLDER: [u32; 3] = [0, 7 << 24, 0];
/// `BTF_KIND_TYPEDEF` and `BTF_KIND_FUNC`: each refers to one type, and has nothing behind it.
const TYPEDEF: u32 = 8 << 24;
const FUNCTION: u32 = 12 << 24;

impl Btf {
    /// BTF with the same numbers, of which only typedefs and functions of the names for which
    /// `wanted` says so have names. It ends with the last of them. What they refer to is lost: it
    /// tells numbers, nothing else.
    #[must_use]
    pub fn skeleton(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut strings: Vec<u8> = vec![0];
        let mut kept: Vec<(usize, [u32; 3])> = Vec::new();
        for (index, &at) in self.offsets.iter().enumerate() {
            let label = usize::try_from(at)
                .ok()
                .and_then(|at| self.sections.label(&self.data, at));
            let (name, info) = match label {
                Some((name, Kind::Typedef)) => (name, TYPEDEF),
                Some((name, Kind::Function)) => (name, FUNCTION),
                _ => continue,
            };
            if name.is_empty() || !wanted(name) {
                continue;
            }
            let Ok(place) = u32::try_from(strings.len()) else {
                break;
            };
            strings.extend_from_slice(name);
            strings.push(0);
            kept.push((index, [place, info, 0]));
        }
        let count = kept.last().map_or(0, |(last, _)| last + 1);
        let mut bytes = Vec::with_capacity(24 + 12 * count + strings.len());
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&[1, 0]); // version, flags
        // A table of types that was read whole has fewer bytes than the 32 bits of its header.
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let (types, strings_length) = (length(12 * count), length(strings.len()));
        for word in [HEADER_BYTES, 0, types, types, strings_length] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let mut kept = kept.into_iter().peekable();
        for index in 0..count {
            let record = match kept.next_if(|(at, _)| *at == index) {
                Some((_, record)) => record,
                None => PLACEHOLDER,
            };
            for word in record {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&strings);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::VMLINUX;
    use super::*;

    #[test]
    fn numbers_stay_and_everything_else_goes() {
        let Ok(whole) = Btf::from_file(VMLINUX.as_ref()) else {
            eprintln!("skipped: this kernel has no BTF");
            return;
        };
        let names = ["btf_trace_kfree_skb", "bpf_iter_tcp", "tcp_v4_rcv"];
        let bytes = whole.skeleton(|name| names.iter().any(|wanted| wanted.as_bytes() == name));
        let small = Btf::from_bytes(bytes).unwrap();
        let number = |btf: &Btf, name: &str| {
            let found = btf.named(name, |kind| matches!(kind, Kind::Typedef | Kind::Function));
            found.first().map(|(id, _)| *id)
        };
        for name in names {
            assert!(number(&whole, name).is_some(), "{name}");
            assert_eq!(number(&small, name), number(&whole, name), "{name}");
        }
        assert_eq!(number(&small, "tcp_v6_rcv"), None);
        assert!(small.type_count() <= whole.type_count());
    }

    #[test]
    fn nothing_wanted_is_valid_too() {
        let Ok(whole) = Btf::from_file(VMLINUX.as_ref()) else {
            eprintln!("skipped: this kernel has no BTF");
            return;
        };
        let small = Btf::from_bytes(whole.skeleton(|_| false)).unwrap();
        assert_eq!(small.type_count(), 0);
    }
}
