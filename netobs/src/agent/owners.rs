//! Who listens: by the process that called `listen()`, else by who holds the socket.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use netobs_common::ledger::Listener;
use tracing::debug;

use crate::{
    ledger::listeners::Owners,
    sys::owner::{Comm, SocketOwners},
};

/// Looks into a /proc.
pub(super) struct ProcOwners {
    proc_root: PathBuf,
}

impl ProcOwners {
    pub(super) fn new(proc_root: &Path) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
        }
    }
}

impl Owners for ProcOwners {
    fn names(&mut self, listeners: &[Listener]) -> Vec<String> {
        // One walk over all processes serves every listener whose listen() was not seen.
        let wanted: HashSet<u64> = listeners
            .iter()
            .filter(|listener| listener.pid == 0 && listener.inode != 0)
            .map(|listener| listener.inode)
            .collect();
        let holders = if wanted.is_empty() {
            None
        } else {
            SocketOwners::scan(&self.proc_root, &wanted)
                .inspect_err(|error| debug!(%error, "owners of sockets not found"))
                .ok()
        };
        listeners
            .iter()
            .map(|listener| {
                let comm = if listener.pid != 0 {
                    // The process' own name says more than its thread's, as long as it lives.
                    Comm::of_pid(&self.proc_root, listener.pid)
                        .unwrap_or_else(|_| Comm::from_bytes(&listener.comm))
                } else {
                    let holder = holders.as_ref().and_then(|all| all.get(&listener.inode));
                    holder.map(|owner| owner.comm).unwrap_or_default()
                };
                comm.to_string()
            })
            .collect()
    }
}
