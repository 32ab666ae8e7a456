//! What can be wrong with a configuration, and where.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    nearest::{nearest, suggestion},
    variable,
};

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line, by this flag.
    Flag(&'static str),
    /// In the environment, by the variable of this flag.
    Variable(&'static str),
    /// In a file.
    File {
        /// As it was named on the command line.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
    },
}

impl Origin {
    /// The place `offset` bytes into `text`, which was read from `path`.
    pub(super) fn in_file(path: &Path, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self::File {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Variable(flag) => f.write_str(&variable(flag)),
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
        }
    }
}

/// A configuration that cannot be used. All of these are the user's to mend: exit code 2.
#[derive(Debug, Error)]
pub enum Error {
    /// The file could not be opened or read.
    #[error("failed to read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error(
        "{} is larger than {limit} bytes, the most a configuration file may have",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most it may have.
        limit: usize,
    },
    /// The file is not text.
    #[error("{origin}: the file is not UTF-8 text")]
    NotText {
        /// The first byte that is not.
        origin: Origin,
    },
    /// The file is not TOML, or a value is of the wrong type.
    #[error("{origin}: {}{message}", key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
    Malformed {
        /// Where.
        origin: Origin,
        /// The key, dotted, whose value is of the wrong type; none when the file is not TOML.
        key: Option<String>,
        /// What the parser expected.
        message: String,
    },
    /// A key, table, probe or rule that netobs does not know.
    #[error("{origin}: unknown {kind} \"{}\"; {suggestion}", name.escape_debug())]
    Unknown {
        /// Where.
        origin: Origin,
        /// `key`, `table`, `probe` or `rule`.
        kind: &'static str,
        /// As it was written, cut when very long.
        name: String,
        /// The nearest known name, or the list of all.
        suggestion: String,
    },
    /// A value of the right type that makes no sense.
    #[error("{origin}: {key}: {message}")]
    Value {
        /// Where.
        origin: Origin,
        /// The key, dotted.
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// One layer both enables and disables a probe.
    #[error("{origin}: probe \"{name}\" is both enabled and disabled; decide for one")]
    Contradiction {
        /// Where it is disabled.
        origin: Origin,
        /// The probe.
        name: String,
    },
    /// One layer names an address twice.
    #[error("{origin}: {address} is named twice")]
    AddressTwice {
        /// The second place.
        origin: Origin,
        /// The address.
        address: SocketAddr,
    },
}

impl Error {
    pub(super) fn unknown(origin: Origin, kind: &'static str, name: &str, known: &[&str]) -> Self {
        let suggestion = suggestion(name, known);
        Self::Unknown {
            origin,
            kind,
            name: name.chars().take(64).collect(),
            suggestion,
        }
    }

    /// There are too many rules to name them all.
    pub(super) fn unknown_rule(origin: Origin, id: &str, known: &[&str]) -> Self {
        let suggestion = match nearest(id, known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "`netobs audit` shows their ids, such as NETOBS-TCP-001".to_owned(),
        };
        Self::Unknown {
            origin,
            kind: "rule",
            name: id.chars().take(64).collect(),
            suggestion,
        }
    }
}
