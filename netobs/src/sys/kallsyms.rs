//! Address ranges of kernel functions, from `/proc/kallsyms`.
//!
//! The `kfree_skb` tracepoint says from where a packet was dropped as a return address; the
//! ranges made here turn it into a function. The file is several MiB, in parts unsorted (modules,
//! BPF programs), and is read once as a stream: nothing of it is kept but the ranges.
//!
//! kernel: kernel/kallsyms.c s_show(): `<address> <type> <name>[\t[<module>]]`

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Longer than any line: a name has at most 511 bytes, a module's 56.
const LINE_LIMIT: u64 = 1024;
/// The kernel's text has about 100,000 symbols; the bound is for a file that never ends.
const LINE_COUNT_LIMIT: usize = 8_000_000;
/// Pieces of one function: the body, `.cold`, parts and clones.
const PIECE_LIMIT: usize = 1024;
/// Big reads: the kernel formats the file anew for each.
const BUFFER_BYTES: usize = 64 << 10;

/// Why no ranges could be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KallsymsError {
    /// The file could not be read.
    #[error("failed to read kernel symbols from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel shows zeros instead of addresses.
    #[error(
        "kernel symbol addresses are hidden: run with CAP_SYSLOG, and with the sysctl \
         kernel.kptr_restrict at 0 or 1"
    )]
    Restricted,
    /// The text is not what the kernel writes.
    #[error("malformed kernel symbols at line {line}")]
    Malformed {
        /// The first line that is wrong, from 1.
        line: usize,
    },
}

/// A piece of a kernel function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolRange {
    /// The name that was asked for, without the suffix of a piece.
    pub name: String,
    /// First address.
    pub start: u64,
    /// First address after it: the next text symbol. A return address `a` of a call belongs to the
    /// range with `start < a <= end` when the call is the last instruction, else `a < end`.
    pub end: u64,
}

/// The ranges of all functions with one of these names, and of the pieces the compiler split off
/// (`.cold`, `.part.N`, `.isra.N`, `.constprop.N` in any order), ordered by address. A name that
/// the kernel does not have gives no range. With no name asked for, nothing is read.
///
/// # Errors
/// [`KallsymsError::Restricted`] when all addresses are zero (`kernel.kptr_restrict`, or no
/// `CAP_SYSLOG`); the others when the file cannot be read or is not kallsyms.
pub fn text_ranges(path: &Path, names: &[&str]) -> Result<Vec<SymbolRange>, KallsymsError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |source| KallsymsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    read_ranges(BufReader::with_capacity(BUFFER_BYTES, file), names).map_err(|error| match error {
        Fault::Read(source) => failed(source),
        Fault::Restricted => KallsymsError::Restricted,
        Fault::Malformed { line } => KallsymsError::Malformed { line },
    })
}

/// A [`KallsymsError`] before the path is known.
#[derive(Debug)]
enum Fault {
    Read(io::Error),
    Restricted,
    Malformed { line: usize },
}

fn read_ranges(mut input: impl BufRead, names: &[&str]) -> Result<Vec<SymbolRange>, Fault> {
    let mut found: Vec<(u64, &str)> = Vec::new();
    // Every text address, to find each range's end: a start may be read after its end.
    let mut addresses: Vec<u64> = Vec::new();
    let mut line = Vec::with_capacity(128);
    let mut number = 0;
    let mut visible = false;
    while next_line(&mut input, &mut line).map_err(Fault::Read)? {
        number += 1;
        let malformed = Fault::Malformed { line: number };
        if number > LINE_COUNT_LIMIT {
            return Err(malformed);
        }
        let Some((address, kind, name)) = split(&line) else {
            return Err(malformed);
        };
        visible |= address != 0;
        if !matches!(kind, b't' | b'T' | b'w' | b'W') {
            continue;
        }
        addresses.push(address);
        if let Some(&wanted) = names.iter().find(|wanted| is_piece_of(name, wanted)) {
            if found.len() == PIECE_LIMIT {
                return Err(malformed);
            }
            found.push((address, wanted));
        }
    }
    if !visible {
        return Err(if number == 0 {
            Fault::Malformed { line: 0 }
        } else {
            Fault::Restricted
        });
    }
    addresses.sort_unstable();
    found.sort_unstable();
    found.dedup();
    let range = |(start, name): (u64, &str)| {
        let after = addresses.partition_point(|&address| address <= start);
        // The last symbol of all has no end that can be known, and is no function of ours.
        let end = addresses.get(after).copied()?;
        Some(SymbolRange {
            name: name.to_owned(),
            start,
            end,
        })
    };
    Ok(found.into_iter().filter_map(range).collect())
}

/// Reads one line, without its end; false at the end of the input. What is longer than
/// [`LINE_LIMIT`] is cut into several lines, so that memory stays bounded; `split` refuses them.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = input.take(LINE_LIMIT).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(read > 0)
}

/// Address, type and name of a line.
fn split(line: &[u8]) -> Option<(u64, u8, &[u8])> {
    let space = line
        .iter()
        .position(|&byte| byte == b' ')
        .filter(|at| (1..=16).contains(at))?;
    let mut address = 0;
    for &digit in line.get(..space)? {
        address = address << 4 | u64::from(char::from(digit).to_digit(16)?);
    }
    match line.get(space + 1..)? {
        [kind, b' ', name @ ..] => {
            let end = name
                .iter()
                .position(|&byte| byte == b'\t')
                .unwrap_or(name.len());
            Some((address, *kind, name.get(..end)?))
        }
        _ => None,
    }
}

/// Whether `name` is `function`, or a piece that the compiler made of it.
fn is_piece_of(name: &[u8], function: &str) -> bool {
    let Some(mut rest) = name.strip_prefix(function.as_bytes()) else {
        return false;
    };
    while !rest.is_empty() {
        rest = match rest.strip_prefix(b".cold") {
            // GCC numbers the cold parts of clones: `.cold.12`.
            Some(rest) => number_suffix(rest).unwrap_or(rest),
            None => {
                let suffixes: [&[u8]; 3] = [b".part", b".isra", b".constprop"];
                let numbered = suffixes
                    .iter()
                    .find_map(|suffix| rest.strip_prefix(*suffix));
                match numbered.and_then(number_suffix) {
                    Some(rest) => rest,
                    None => return false,
                }
            }
        };
    }
    true
}

/// What follows `.N`, if the text starts so.
fn number_suffix(text: &[u8]) -> Option<&[u8]> {
    let digits = text.strip_prefix(b".")?;
    let end = digits
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(digits.len());
    digits.get(end..).filter(|_| end > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T _text
ffffffff82000300 T tcp_v4_rcv
ffffffff82000000 t tcp_rcv_state_process.part.0.cold
ffffffff82000500 d tcp_v4_rcv
ffffffff82000900 T tcp_v4_rcvx
ffffffff82000100 W tcp_rcv_state_process
ffffffff82000100 T alias
ffffffff82000200 t tcp_v4_rcv.constprop.0.isra.12
ffffffff82000800 t tcp_v4_rcv.llvm.99
ffffffffc0000000 t tcp_v4_rcv\t[module]
ffffffffc0000010 t last\t[bpf]
";

    fn ranges(text: &str, names: &[&str]) -> Result<Vec<(String, u64, u64)>, Fault> {
        let ranges = read_ranges(BufReader::with_capacity(7, text.as_bytes()), names)?;
        Ok(ranges
            .into_iter()
            .map(|range| (range.name, range.start, range.end))
            .collect())
    }

    #[test]
    fn pieces_end_at_the_next_text_symbol() {
        let process = "tcp_rcv_state_process".to_owned();
        let rcv = "tcp_v4_rcv".to_owned();
        assert_eq!(
            ranges(TEXT, &["tcp_v4_rcv", "tcp_rcv_state_process", "nope"]).unwrap(),
            [
                (
                    process.clone(),
                    0xffff_ffff_8200_0000,
                    0xffff_ffff_8200_0100
                ),
                (process, 0xffff_ffff_8200_0100, 0xffff_ffff_8200_0200),
                (rcv.clone(), 0xffff_ffff_8200_0200, 0xffff_ffff_8200_0300),
                (rcv.clone(), 0xffff_ffff_8200_0300, 0xffff_ffff_8200_0800),
                (rcv, 0xffff_ffff_c000_0000, 0xffff_ffff_c000_0010),
            ]
        );
        assert!(ranges(TEXT, &["last"]).unwrap().is_empty());
    }

    #[test]
    fn suffixes_of_pieces() {
        for name in [
            "f",
            "f.cold",
            "f.part.0",
            "f.isra.3.cold",
            "f.constprop.0.part.1",
            "f.cold.9",
        ] {
            assert!(is_piece_of(name.as_bytes(), "f"), "{name}");
        }
        for name in [
            "ff", "f.part", "f.part.", "f.part.x", "f.llvm.1", "f.", "g", "f.coldx",
        ] {
            assert!(!is_piece_of(name.as_bytes(), "f"), "{name}");
        }
    }

    #[test]
    fn hidden_addresses_are_said_to_be_hidden() {
        let hidden = "0000000000000000 T _text\n0000000000000000 t f\n";
        assert!(matches!(ranges(hidden, &["f"]), Err(Fault::Restricted)));
        assert!(KallsymsError::Restricted.to_string().contains("CAP_SYSLOG"));
    }

    #[test]
    fn other_text_is_refused_with_its_line() {
        assert!(matches!(
            ranges("", &["f"]),
            Err(Fault::Malformed { line: 0 })
        ));
        let second = "ffffffff81000000 T _text\nhello\n";
        assert!(matches!(
            ranges(second, &["f"]),
            Err(Fault::Malformed { line: 2 })
        ));
    }

    #[test]
    fn the_running_kernel_answers() {
        let path = Path::new("/proc/kallsyms");
        let start = std::time::Instant::now();
        match text_ranges(path, &["tcp_v4_rcv", "tcp_rcv_state_process"]) {
            Ok(ranges) => {
                eprintln!("{ranges:x?} in {:?}", start.elapsed());
                assert!(ranges.iter().any(|range| range.name == "tcp_v4_rcv"));
                assert!(ranges.iter().all(|range| range.start < range.end));
            }
            Err(error) => {
                let root = nix::unistd::geteuid().is_root();
                let required = std::env::var("NETOBS_REQUIRE").as_deref() == Ok("1");
                assert!(!root && !required, "{error}");
                eprintln!("skipped: {error}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_error_or_ranges(text in "([0-9a-f]{1,17} [tTdW] f[.coldpart0-9]{0,9}\n|.{0,9}\n){0,9}") {
            let _ = ranges(&text, &["f"]);
        }
    }
}
