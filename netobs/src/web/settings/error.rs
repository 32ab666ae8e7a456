//! What can be wrong with a web configuration file, and where.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// A place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    /// Line and column, counted from 1.
    at: Option<(u64, u64)>,
}

impl Place {
    pub(super) fn new(path: &Path, at: Option<(u64, u64)>) -> Self {
        Self {
            path: path.to_owned(),
            at,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match self.at {
            Some((line, column)) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

/// A web configuration that cannot be used. All of these are the user's to mend.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// A file could not be read.
    #[error("failed to read {what} {}", path.display())]
    Read {
        /// Which one, such as `the web configuration file` or `key_file`.
        what: &'static str,
        /// Its path, resolved.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is closed to the user that netobs runs as.
    #[error(
        "failed to read {what} {} as user {uid}: let this user read it (chgrp and chmod; under \
         systemd LoadCredential=; in Kubernetes defaultMode and fsGroup)",
        path.display()
    )]
    Closed {
        /// Which one.
        what: &'static str,
        /// Its path, resolved.
        path: PathBuf,
        /// The user, by number.
        uid: u32,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not YAML of this form: syntax, an unknown key, or a wrong type.
    #[error("{place}: {message}")]
    Malformed {
        /// Where.
        place: Place,
        /// What is wrong; no values of the file.
        message: String,
    },
    /// A value of the right type that cannot be used.
    #[error("{place}: {key}: {message}")]
    Value {
        /// Where.
        place: Place,
        /// The key, dotted.
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A file holds no certificate or key where one is needed, or one that cannot be used.
    #[error("{what} {}: {message}", path.display())]
    Pem {
        /// Which one, such as `cert_file`.
        what: &'static str,
        /// Its path, resolved.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Certificate, key, versions and suites do not make a working TLS server.
    #[error("{}: tls_server_config cannot be used", path.display())]
    Tls {
        /// The web configuration file.
        path: PathBuf,
        /// What the TLS library said.
        source: rustls::Error,
    },
}
