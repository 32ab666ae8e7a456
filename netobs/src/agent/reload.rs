//! What a running agent takes over from a configuration that was read again.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Agent;
use crate::config::Limits;

/// How the latest reading of the configuration went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reload {
    /// Whether it could be used.
    pub(super) successful: bool,
    /// When one could last be used, in seconds since 1970.
    pub(super) succeeded_at: u64,
}

impl Default for Reload {
    /// The configuration of the start has been used.
    fn default() -> Self {
        Self {
            successful: true,
            succeeded_at: now(),
        }
    }
}

impl Agent {
    /// Notes how a reading of the configuration went.
    pub fn note_reload(&mut self, successful: bool) {
        self.reload.successful = successful;
        if successful {
            self.reload.succeeded_at = now();
        }
    }

    /// Takes new bounds. What is counted stays as it is.
    pub fn limit(&mut self, limits: Limits) {
        let most = limits.max_label_sets;
        self.listeners.limit(most);
        self.retransmits.limit(most);
        self.connects.limit(most);
        self.accepts.limit(most);
        self.resets.limit(most);
        if let Some(dns) = &mut self.dns {
            dns.limit(most);
        }
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
