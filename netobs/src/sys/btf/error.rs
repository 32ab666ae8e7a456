//! What can be wrong with BTF, or missing from it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why BTF could not be read, or did not answer a question.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BtfError {
    /// The file could not be read.
    #[error("failed to read BTF from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// More bytes than any kernel has.
    #[error("BTF is larger than {limit} bytes")]
    TooLarge {
        /// The most that is read.
        limit: u64,
    },
    /// The magic number is not there.
    #[error("not BTF: the magic number is missing")]
    NotBtf,
    /// Written by a machine of the other byte order.
    #[error("BTF is big-endian, which is not supported")]
    BigEndian,
    /// A version of the format that this reader does not know.
    #[error("BTF has format version {version}, only version 1 is supported")]
    Version {
        /// What the header says.
        version: u8,
    },
    /// The bytes contradict themselves.
    #[error("malformed BTF: bad {what} at byte {at}")]
    Malformed {
        /// The part that is wrong.
        what: &'static str,
        /// Where in the file, in bytes; 0 when the fault has no place.
        at: usize,
    },
    /// A kind of type whose size is unknown, so that what follows it cannot be found.
    #[error("BTF has a type of unknown kind {kind} at byte {at}")]
    UnknownKind {
        /// The number of the kind.
        kind: u32,
        /// Where in the file, in bytes.
        at: usize,
    },
    /// No type of that name.
    #[error("the kernel has no {what} {name}")]
    NoType {
        /// The keyword: `struct`, `enum`.
        what: &'static str,
        /// The name asked for.
        name: String,
    },
    /// The struct or union is there, the member is not.
    #[error("{parent} has no member {member}")]
    NoMember {
        /// The struct or union, with its keyword, or the path so far when it has no name.
        parent: String,
        /// The member asked for.
        member: String,
    },
    /// A path leads through a member that has no members.
    #[error("{path} is {what}: cannot look for {member} in it")]
    NotTraversable {
        /// The path up to the member.
        path: String,
        /// What it is: `a pointer`, `an array`, `not a struct or union`.
        what: &'static str,
        /// The segment that comes after it.
        member: String,
    },
    /// The enum is there, the enumerator is not.
    #[error("{parent} has no value {name}")]
    NoEnumerator {
        /// `enum` and its name, or `the kernel` for a search in all enums.
        parent: String,
        /// The enumerator asked for.
        name: String,
    },
    /// Several types of that name answer differently.
    #[error("the kernel has several different answers for {name}")]
    Ambiguous {
        /// What was asked for.
        name: String,
    },
    /// The question itself is not well formed.
    #[error("bad member path {path:?}: expected struct.member[.member...]")]
    BadPath {
        /// What was asked for.
        path: String,
    },
}

impl BtfError {
    pub(super) fn malformed(what: &'static str, at: usize) -> Self {
        Self::Malformed { what, at }
    }
}
