//! Metric families, by subsystem: name, help and labels stand where the values are encoded.
//!
//! Values are encoded straight from the books at each scrape; nothing is kept twice. A new family
//! is a few lines in its subsystem's file.

mod family;
mod ledger;
mod listeners;
mod own;
mod process;
mod retransmits;

pub use family::{Label, Value};
pub use ledger::NetnsView;
pub use own::SelfView;

use prometheus_client::encoding::DescriptorEncoder;

use crate::ledger::{listeners::ListenerBook, retransmits::RetransmitBook};

/// Everything that a scrape shows.
pub struct View<'a> {
    /// Listeners.
    pub listeners: &'a ListenerBook,
    /// Retransmissions.
    pub retransmits: &'a RetransmitBook,
    /// Namespaces and their ledgers, by inode number.
    pub namespaces: &'a [NetnsView],
    /// The agent itself.
    pub agent: &'a SelfView,
}

impl View<'_> {
    /// Writes every family.
    ///
    /// # Errors
    ///
    /// When the encoder's buffer refuses.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        retransmits::encode(self.retransmits, encoder)?;
        listeners::encode(self.listeners, encoder)?;
        ledger::encode(self.namespaces, encoder)?;
        own::encode(self, encoder)?;
        process::encode(encoder)
    }
}
