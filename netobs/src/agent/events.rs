//! What comes out of the ring.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use netobs_common::event::{Event, LISTENER_OPENED};
use tracing::{trace, warn};

use super::paths::ProbeSockets;
use crate::bpf::{Filling, Ring};

/// The ring and what has come out of it.
pub(super) struct Events {
    ring: Ring,
    undecodable: u64,
    probes: Option<Arc<ProbeSockets>>,
}

impl Events {
    pub(super) fn new(ring: Ring) -> Self {
        Self {
            ring,
            undecodable: 0,
            probes: None,
        }
    }

    /// Leaves the events of path probes' sockets with them from now on.
    pub(super) fn tell_probes(&mut self, sockets: Arc<ProbeSockets>) {
        self.probes = Some(sockets);
    }

    /// The sockets of path probes, for events that do not come out of the ring and for stories.
    pub(super) fn probes(&self) -> Option<&ProbeSockets> {
        self.probes.as_deref()
    }

    /// Takes every waiting record, and hands each event to `visit`. Returns whether a listener was
    /// opened in a namespace that is not known yet.
    pub(super) fn drain(
        &mut self,
        known: impl Fn(u32) -> bool,
        mut visit: impl FnMut(&Event),
    ) -> bool {
        let mut stranger = false;
        let mut undecodable = 0;
        let probes = self.probes.as_deref();
        self.ring.drain(|bytes| match Event::decode(bytes) {
            Ok(event) => {
                if let Event::Listener(change) = event {
                    stranger |= change.change == LISTENER_OPENED && !known(change.header.netns);
                }
                if let Some(probes) = probes {
                    probes.record(&event);
                }
                trace!(?event);
                visit(&event);
            }
            Err(error) => {
                if undecodable == 0 {
                    warn!(%error, "a record of the ring is not an event");
                }
                undecodable += 1;
            }
        });
        self.undecodable += undecodable;
        stranger
    }

    /// Tells when much waits.
    pub(super) fn filling(&self) -> io::Result<Filling> {
        Filling::watch(&self.ring)
    }

    /// Records that were not events.
    pub(super) fn undecodable(&self) -> u64 {
        self.undecodable
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
