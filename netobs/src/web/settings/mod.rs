//! The file of `--web.config.file`: TLS, basic authentication, headers, request rate.
//!
//! The form is that of the Prometheus exporter-toolkit, so that one file serves all exporters of a
//! host. What of it is supported is listed in docs/web-config.md; everything else is refused with
//! its place, because a security setting that is ignored is worse than none.

mod duration;
mod error;
mod file;
mod yaml;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use hyper::header::{HeaderName, HeaderValue};
use rustls::{CipherSuite, NamedGroup};

pub use self::error::{Place, SettingsError};
pub(super) use self::file::{bytes, read};

/// The file, checked. No file that it names has been read yet.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) path: PathBuf,
    pub(super) tls: Option<Tls>,
    /// Header fields for every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Users and their bcrypt hashes; when empty, nobody is asked for a password.
    pub(super) users: BTreeMap<String, Hash>,
    pub(super) rate: Option<Rate>,
}

/// A bcrypt hash. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hash {
    pub(super) text: String,
    /// Base-2 logarithm of the rounds.
    pub(super) cost: u32,
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash")
    }
}

/// One request per `interval`, and `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) interval: Duration,
    pub(super) burst: u32,
}

/// `tls_server_config`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) cert_file: PathBuf,
    pub(super) key_file: PathBuf,
    pub(super) client_ca_file: Option<PathBuf>,
    pub(super) client_auth: ClientAuth,
    /// Names of which a client's certificate must carry one.
    pub(super) client_allowed_sans: Option<Vec<String>>,
    pub(super) tls12: bool,
    pub(super) tls13: bool,
    /// Suites of TLS 1.2 in order of preference; `None` means all.
    pub(super) suites: Option<Vec<CipherSuite>>,
    /// Key exchange groups in order of preference; `None` means all.
    pub(super) groups: Option<Vec<NamedGroup>>,
    /// Whether our order of suites counts, rather than the client's.
    pub(super) prefer_server_suites: bool,
}

/// What is asked of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAuth {
    /// Not asked for.
    None,
    /// Asked for, not needed, not verified.
    Request,
    /// Needed, not verified.
    RequireAny,
    /// Not needed, verified when there is one.
    VerifyIfGiven,
    /// Needed and verified.
    RequireAndVerify,
}

impl ClientAuth {
    pub(super) const fn is_mandatory(self) -> bool {
        matches!(self, Self::RequireAny | Self::RequireAndVerify)
    }

    pub(super) const fn is_verified(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

#[cfg(test)]
mod tests;
