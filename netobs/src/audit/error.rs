//! What can go wrong while auditing, as opposed to what an audit finds.

use std::io;
use std::path::PathBuf;

/// A failure that stops an audit, or one part of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A file that the audit cannot do without.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The one namespace that was asked for could not be looked at.
    #[error("{} leads to no network namespace, or it went away during the audit", path.display())]
    NoNamespace {
        /// The way to it.
        path: PathBuf,
    },
    /// No rule has this id.
    #[error("no rule is called {id:?}; `netobs audit list` names them all")]
    UnknownRule {
        /// What was asked for.
        id: String,
    },
    /// No setting has this name.
    #[error("no audited setting matches {key:?}; `netobs audit list --keys` names them all")]
    UnknownKey {
        /// What was asked for.
        key: String,
    },
    /// A report could not be turned into JSON.
    #[error("failed to write the report as JSON")]
    Json(#[from] serde_json::Error),
    /// A report could not be written out.
    #[error("failed to write the report")]
    Write(#[from] io::Error),
}
