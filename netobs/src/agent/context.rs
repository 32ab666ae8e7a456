//! Who listens now, as events: what a recording or a trace that begins here is understood by.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use netobs_common::{
    event::{EventHeader, EventKind, LISTENER_FOUND, ListenerChange},
    ledger::{Listener, ListenerReading},
};

use crate::sys::owner::{Comm, Owner, SocketOwners};

/// Finds who holds listening sockets; remembers it, since the walk over all processes is long.
pub(super) struct Context {
    proc_root: PathBuf,
    /// By inode of the socket's file; `None` for one that nobody was found to hold.
    holders: HashMap<u64, Option<Owner>>,
}

impl Context {
    pub(super) fn new(proc_root: PathBuf) -> Self {
        Self {
            proc_root,
            holders: HashMap::new(),
        }
    }

    /// One event for each listener of a look.
    pub(super) fn events(&mut self, readings: &[ListenerReading]) -> Vec<ListenerChange> {
        let of_unknown = |reading: &ListenerReading| {
            let Listener { pid, inode, .. } = reading.listener;
            (pid == 0 && inode != 0).then_some(inode)
        };
        let present: HashSet<u64> = readings.iter().filter_map(of_unknown).collect();
        self.holders.retain(|inode, _| present.contains(inode));
        let wanted: HashSet<u64> = present
            .into_iter()
            .filter(|inode| !self.holders.contains_key(inode))
            .collect();
        if let Ok(mut found) = SocketOwners::scan(&self.proc_root, &wanted) {
            let asked = wanted.into_iter();
            self.holders
                .extend(asked.map(|inode| (inode, found.remove(&inode))));
        }
        readings.iter().map(|reading| self.event(reading)).collect()
    }

    fn event(&self, ListenerReading { socket, listener }: &ListenerReading) -> ListenerChange {
        let (pid, name) = if listener.pid == 0 {
            let holder = self.holders.get(&listener.inode).and_then(Option::as_ref);
            holder.map_or((0, Comm::default()), |holder| (holder.pid, holder.comm))
        } else {
            // The process' own name says more than its thread's, as long as it lives.
            let name = Comm::of_pid(&self.proc_root, listener.pid);
            (
                listener.pid,
                name.unwrap_or_else(|_| Comm::from_bytes(&listener.comm)),
            )
        };
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().zip(name.as_bytes()) {
            *to = *from;
        }
        ListenerChange {
            header: EventHeader {
                ktime_ns: socket.ktime_ns,
                kind: EventKind::Listener as u32,
                netns: listener.netns,
            },
            sk: socket.sk,
            change: LISTENER_FOUND,
            pid,
            local_address: listener.local_address,
            local_port: listener.local_port,
            family: listener.family,
            reserved: 0,
            comm,
        }
    }
}
