//! Who listens now, as events: what a recording or a trace that begins here is understood by.

use std::collections::{HashMap, HashSet};

use netobs_common::{
    event::{EventHeader, EventKind, LISTENER_FOUND, ListenerChange},
    ledger::{Listener, ListenerReading},
    owner::Owner,
};

use super::ProcOwners;
use crate::sys::owner::Owner as Holder;

/// Remembers who holds listening sockets whose `listen()` was not seen: the walk over all processes
/// is long.
#[derive(Default)]
pub(super) struct Context {
    /// By inode of the socket's file; `None` for one that nobody was found to hold.
    holders: HashMap<u64, Option<Holder>>,
}

/// The inode by which the holder of a listener is to be looked for.
fn unknown(listener: &Listener) -> Option<u64> {
    (listener.owner.pid == 0 && listener.inode != 0).then_some(listener.inode)
}

impl Context {
    /// One event for each listener of a look.
    pub(super) fn events(
        &mut self,
        readings: &[ListenerReading],
        owners: &mut ProcOwners,
    ) -> Vec<ListenerChange> {
        let present: HashSet<u64> = readings
            .iter()
            .filter_map(|reading| unknown(&reading.listener))
            .collect();
        self.holders.retain(|inode, _| present.contains(inode));
        let wanted: HashSet<u64> = present
            .into_iter()
            .filter(|inode| !self.holders.contains_key(inode))
            .collect();
        if !wanted.is_empty() {
            let mut found = owners.scan(&wanted);
            let asked = wanted.into_iter();
            self.holders
                .extend(asked.map(|inode| (inode, found.remove(&inode))));
        }
        let event = |reading: &ListenerReading| ListenerChange {
            header: EventHeader {
                ktime_ns: reading.socket.ktime_ns,
                kind: EventKind::Listener as u32,
                netns: reading.listener.owner.netns,
            },
            sk: reading.socket.sk,
            owner: self.owner(&reading.listener, owners),
            local_address: reading.listener.local_address,
            local_port: reading.listener.local_port,
            family: reading.listener.family,
            change: LISTENER_FOUND,
        };
        readings.iter().map(event).collect()
    }

    /// Who listens, as far as it was found out.
    pub(super) fn owner(&self, listener: &Listener, owners: &ProcOwners) -> Owner {
        let holder = self.holders.get(&listener.inode).and_then(Option::as_ref);
        match (unknown(listener), holder) {
            (Some(_), Some(holder)) => owners.owner(listener.owner, holder),
            _ => listener.owner,
        }
    }
}
