//! What comes out of the ring.

use std::os::fd::{AsRawFd, RawFd};

use netobs_common::event::{Event, LISTENER_OPENED};
use tracing::{trace, warn};

use crate::bpf::Ring;

/// The ring and what has come out of it.
pub(super) struct Events {
    ring: Ring,
    undecodable: u64,
}

impl Events {
    pub(super) fn new(ring: Ring) -> Self {
        Self {
            ring,
            undecodable: 0,
        }
    }

    /// Takes every waiting record. Returns whether a listener was opened in a namespace that is not
    /// known yet.
    pub(super) fn drain(&mut self, known: impl Fn(u32) -> bool) -> bool {
        let mut stranger = false;
        let mut undecodable = 0;
        self.ring.drain(|bytes| match Event::decode(bytes) {
            Ok(event) => {
                if let Event::Listener(change) = event {
                    stranger |= change.change == LISTENER_OPENED && !known(change.header.netns);
                }
                trace!(?event);
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

    /// Takes an event that the agent itself brings about.
    pub(super) fn note(&mut self, event: &Event) {
        trace!(?event);
    }

    /// Records that were not events.
    pub(super) fn undecodable(&self) -> u64 {
        self.undecodable
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
