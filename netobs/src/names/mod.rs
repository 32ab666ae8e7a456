//! Names of pods and containers: from the container runtime, from the Kubernetes API, or both.
//!
//! Optional, and off the hot path: everything happens on a thread of its own, and a [`Names`] is
//! asked what is known by now. A source that is away is tried again, ever less often up to a minute
//! apart; what it had said stays in use. What a source says no more loses its names after two and a
//! half minutes ([`table`]).

mod backoff;
mod cri;
mod error;
mod kubernetes;
mod source;
mod table;
mod thread;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use self::backoff::Backoff;
use self::source::Source;
pub use self::{
    error::Error,
    kubernetes::Access,
    source::SourceStatus,
    thread::{Naming, Resolver},
};
use crate::ledger::owner::{self, PodName};
use crate::sys::{cgroup::Workload, hardening::Outgoing};

/// Where names come from. None by default.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The socket of the container runtime.
    pub cri_socket: Option<PathBuf>,
    /// The Kubernetes API, asked for the pods of one node.
    pub kubernetes: Option<Access>,
}

impl Settings {
    /// What it takes to ask.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        Outgoing {
            unix: self.cri_socket.is_some(),
            internet: self.kubernetes.is_some(),
        }
    }

    /// Files that are read again and again.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.kubernetes
            .as_ref()
            .map_or_else(Vec::new, Access::files)
    }
}

/// The names known by now. Cheap to clone; all clones see the same.
#[derive(Clone, Default)]
pub struct Names {
    sources: Vec<Arc<Source>>,
}

impl Names {
    /// The names of a workload, as far as a source has told them. Takes a lock for a moment, and
    /// asks nobody: a name that is missing is looked for, and there at a later call.
    #[must_use]
    pub fn lookup(&self, workload: Workload) -> Option<Arc<PodName>> {
        if workload.is_empty() {
            return None;
        }
        let now = Instant::now();
        let found = self
            .sources
            .iter()
            .find_map(|source| source.lookup(workload, now));
        if found.is_none() {
            for source in &self.sources {
                source.miss(workload);
            }
        }
        found
    }

    /// How each source does.
    #[must_use]
    pub fn status(&self) -> Vec<SourceStatus> {
        self.sources.iter().map(|source| source.status()).collect()
    }
}

impl owner::Names for Names {
    fn of(&self, workload: Workload) -> Option<Arc<PodName>> {
        self.lookup(workload)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

/// A way to a source.
trait Connect: Send + Sync {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Makes one.
    fn connect(&self) -> impl Future<Output = Result<Self::Io, Error>> + Send;
}
