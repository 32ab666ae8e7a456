//! Who holds a socket: by the process that called `listen()` or `connect()`, else, for sockets that
//! are older than the agent, by whose descriptors lead to it.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use netobs_common::{
    connection::{Connection, ListenerKey},
    ledger::Listener,
    owner::Owner as KernelOwner,
};
use tracing::debug;

use crate::{
    bpf::{MapError, Maps},
    ledger::{listeners::Owners, owner::Owner},
    sys::{
        cgroup::Workloads,
        owner::{Comm, Owner as Holder, SocketOwners},
    },
};

/// Connections older than the agent whose process is looked for, as a bound.
const MOST_ADOPTED: usize = 131_072;

/// Looks into a /proc.
pub(super) struct ProcOwners {
    proc_root: PathBuf,
    pub(super) workloads: Workloads,
    /// Listeners whose process was found here, for the kernel side to know as well.
    found: Vec<(ListenerKey, KernelOwner)>,
}

impl ProcOwners {
    pub(super) fn new(proc_root: &Path) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            workloads: Workloads::new(proc_root),
            found: Vec::new(),
        }
    }

    /// Tells the kernel side whose listeners are that it could not see being opened.
    pub(super) fn teach(&mut self, maps: &mut Maps) -> Result<(), MapError> {
        for (key, owner) in self.found.drain(..) {
            maps.set_listening(&key, owner)?;
        }
        Ok(())
    }

    /// Finds the processes of connections that are older than the agent.
    pub(super) fn adopt(&mut self, maps: &mut Maps) -> Result<(), MapError> {
        let orphans: Vec<(u64, Connection)> = maps
            .connections(MOST_ADOPTED)
            .filter(|(_, connection)| connection.inode != 0 && connection.begun_ns == 0)
            .collect();
        let inodes = orphans.iter().map(|(_, connection)| connection.inode);
        let holders = self.scan(&inodes.collect());
        for (sk, connection) in orphans {
            if let Some(holder) = holders.get(&connection.inode) {
                let owner = self.owner(connection.owner, holder);
                maps.set_connection_owner(sk, &connection, owner)?;
            }
        }
        Ok(())
    }

    /// Who holds the sockets with these inode numbers, as far as can be seen.
    pub(super) fn scan(&self, inodes: &HashSet<u64>) -> HashMap<u64, Holder> {
        SocketOwners::scan(&self.proc_root, inodes)
            .inspect_err(|error| debug!(%error, "owners of sockets not found"))
            .unwrap_or_default()
    }

    /// What the kernel side would have noted, had it seen the call.
    pub(super) fn owner(&self, known: KernelOwner, holder: &Holder) -> KernelOwner {
        KernelOwner {
            cgroup: self.workloads.number_of(holder.pid).unwrap_or(known.cgroup),
            net: known.net,
            netns: known.netns,
            pid: holder.pid,
            comm: holder.comm.to_bytes(),
        }
    }
}

impl Owners for ProcOwners {
    fn of(&mut self, listeners: &[Listener]) -> Vec<Owner> {
        // One walk over all processes serves every listener whose listen() was not seen.
        let wanted: HashSet<u64> = listeners
            .iter()
            .filter(|listener| listener.owner.pid == 0 && listener.inode != 0)
            .map(|listener| listener.inode)
            .collect();
        let holders = self.scan(&wanted);
        listeners
            .iter()
            .map(|listener| {
                let mut owner = listener.owner;
                if owner.pid == 0
                    && let Some(holder) = holders.get(&listener.inode)
                {
                    owner = self.owner(owner, holder);
                    let key = ListenerKey {
                        net: owner.net,
                        netns: owner.netns,
                        port: listener.local_port,
                        family: listener.family,
                        address: listener.local_address,
                    };
                    self.found.push((key, owner));
                }
                Owner {
                    netns: owner.netns,
                    identity: owner.net,
                    // The name at listen(): by now the process may be gone and its id another's.
                    process: Comm::from_bytes(&owner.comm),
                    workload: self.workloads.of(owner.cgroup, owner.pid),
                }
            })
            .collect()
    }
}
