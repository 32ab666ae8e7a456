//! Metric families, by subsystem: name, help and labels stand where the values are encoded.
//!
//! Values are encoded straight from the books at each scrape; nothing is kept twice. Labels that many samples
//! of a scrape share are made into text once (`family::Rendered`), and not kept until the next: names may
//! change, and making them is a small part of what writing them each time would cost. A new family
//! is an entry in its subsystem's `families!` and the lines that encode it; `docs/metrics.md` is
//! written from the entries.

mod bursts;
mod connects;
mod dns;
mod family;
mod ledger;
mod listeners;
mod own;
mod paths;
mod process;
mod recorder;
mod resets;
mod retransmits;

pub use bursts::Bursts;
pub use family::{Description, Value};
pub use ledger::NetnsView;
pub use own::SelfView;
pub use paths::encode as encode_paths;
pub use resets::ResetReasons;

use prometheus_client::encoding::DescriptorEncoder;

use crate::{
    audit::metrics::FAMILIES,
    ledger::{
        accepts::AcceptBook, connects::ConnectBook, dns::DnsBook, listeners::ListenerBook,
        owner::Names, resets::ResetBook, retransmits::RetransmitBook,
    },
    recorder::Stats,
};

/// Everything that a scrape shows.
pub struct View<'a> {
    /// What Kubernetes calls the owners.
    pub names: &'a dyn Names,
    /// Listeners.
    pub listeners: &'a ListenerBook,
    /// Connections taken from accept queues.
    pub accepts: &'a AcceptBook,
    /// Outgoing handshakes.
    pub connects: &'a ConnectBook,
    /// Resets.
    pub resets: &'a ResetBook,
    /// What this kernel calls their reasons.
    pub reset_reasons: &'a ResetReasons,
    /// Retransmissions.
    pub retransmits: &'a RetransmitBook,
    /// Both by tenths of a second.
    pub bursts: &'a Bursts,
    /// The flight recorder; none where it is switched off.
    pub recorder: Option<Stats>,
    /// Name lookups, when they are watched.
    pub dns: Option<&'a DnsBook>,
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
        retransmits::encode(self, encoder)?;
        listeners::encode(self, encoder)?;
        connects::encode(self, encoder)?;
        resets::encode(self, encoder)?;
        bursts::encode(self, encoder)?;
        dns::encode(self, encoder)?;
        ledger::encode(self.namespaces, encoder)?;
        own::encode(self, encoder)?;
        recorder::encode(self.recorder.as_ref(), encoder)?;
        process::encode(encoder)
    }
}

/// Every family that a scrape can show, in the order in which it shows them.
#[must_use]
pub fn descriptions() -> Vec<Description> {
    retransmits::descriptions()
        .chain(listeners::descriptions())
        .chain(connects::descriptions())
        .chain(resets::descriptions())
        .chain(bursts::descriptions())
        .chain(dns::descriptions())
        .chain(ledger::descriptions())
        .chain(own::descriptions())
        .chain(paths::descriptions())
        .chain(recorder::descriptions())
        .chain(audit_families())
        .chain(process::descriptions())
        .collect()
}

/// The auditor keeps and encodes its own.
fn audit_families() -> impl Iterator<Item = Description> {
    FAMILIES.iter().map(|family| Description {
        name: format!("netobs_{}", family.name),
        kind: "gauge",
        labels: family.labels,
        help: family.help,
    })
}
