//! Why a source says nothing.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why names could not be had; the agent goes on without, and tries again.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody answers at the address.
    #[error("failed to connect to {to}")]
    Connect {
        /// Whom.
        to: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file that it takes to connect cannot be used.
    #[error("failed to read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificates of authorities cannot be used.
    #[error("no usable certificate in {}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
    },
    /// The connection was not made or kept as HTTP has it.
    #[error("failed to speak HTTP with it")]
    Http(#[from] hyper::Error),
    /// It ended the connection.
    #[error("it closed the connection")]
    Closed,
    /// It did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The container runtime refused the call.
    #[error("the container runtime refused the call")]
    Refused(#[source] Box<tonic::Status>),
    /// The API server answered with an error.
    #[error("the API server answered with status {status}")]
    Status {
        /// As in HTTP: 401 for a bad token, 403 for a missing right.
        status: u16,
    },
    /// The API server has forgotten what the watch was to go on from.
    #[error("the API server asks to list anew")]
    Expired,
    /// An answer is larger than any node's pods.
    #[error("an answer is larger than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// An answer is not what the API is documented to send.
    #[error("failed to read an answer")]
    Malformed(#[source] serde_json::Error),
    /// The environment does not say where the API server is.
    #[error("{variable} is not set: not in a pod?")]
    Environment {
        /// What is missing.
        variable: &'static str,
    },
    /// A setting cannot be used.
    #[error("{what} cannot be used: {value:?}")]
    Setting {
        /// Which.
        what: &'static str,
        /// What it is.
        value: String,
    },
    /// The thread that asks could not be made.
    #[error("failed to start the thread that asks for names")]
    Thread(#[source] io::Error),
}
