//! What sheets show and JSON lines say of each listener, and of each set of sockets.

use std::sync::Arc;

use netobs_common::{connection::ConnectFailure, ledger::RetransmitType};
use serde::{Serialize, Serializer};

use super::waits::Wait;
use crate::{
    diagnose::{Diagnosis, Finding},
    ledger::retransmits::TYPES,
    top::{Connects, Listener, Lost, Reset, SCHEMA_VERSION, Sockets},
};

/// A listening address.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerRow {
    /// Who listens where.
    #[serde(flatten)]
    pub listener: Listener,
    /// Sockets that listen.
    pub sockets: u64,
    /// Connections that wait for `accept()`.
    pub queue_length: u64,
    /// Longest queue in the last full minute, or now.
    pub queue_peak: u64,
    /// The limit in force; the queue holds one more.
    pub queue_limit: u64,
    /// Whether `somaxconn` cut what `listen()` was asked for; null when that is not known.
    pub cut_by_somaxconn: Option<bool>,
    /// Requests in the SYN queue.
    pub syn_queue_length: u64,
    /// Listen drops.
    pub drops: u64,
    /// A second.
    pub drops_per_second: f64,
    /// By the packet that was dropped, and why.
    #[serde(serialize_with = "as_map")]
    pub drops_by: Vec<(String, u64)>,
    /// Listen drops because the accept queue was full.
    pub overflows: u64,
    /// Connections taken by `accept()`.
    pub accepts: u64,
    /// A second.
    pub accepts_per_second: f64,
    /// From the end of the handshake to `accept()` in the last minute; null for none.
    #[serde(serialize_with = "wait")]
    pub accept_latency_p50: Option<u64>,
    /// The same.
    #[serde(serialize_with = "wait")]
    pub accept_latency_p99: Option<u64>,
    /// Drops by seconds, the latest last.
    #[serde(skip)]
    pub trend: Vec<u32>,
}

/// Sockets that sent again.
#[derive(Clone, Debug, Serialize)]
pub struct RetransmitRow {
    /// Whose.
    #[serde(flatten)]
    pub sockets: Sockets,
    /// Segments.
    pub segments: u64,
    /// A second.
    pub segments_per_second: f64,
    /// By type.
    #[serde(serialize_with = "by_type")]
    pub by_type: [u64; TYPES.len()],
    /// Attempts that the stack could not send.
    pub failures: u64,
    /// Segments by seconds, the latest last.
    #[serde(skip)]
    pub trend: Vec<u32>,
}

/// Outgoing handshakes.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectRow {
    /// Whose, and whereto.
    #[serde(flatten)]
    pub connects: Connects,
    /// Under way.
    pub waiting: u64,
    /// Completed.
    pub completed: u64,
    /// A second.
    pub completed_per_second: f64,
    /// Those that did not complete.
    pub failed: u64,
    /// A second.
    pub failed_per_second: f64,
    /// Why they did not.
    #[serde(serialize_with = "by_error")]
    pub failures: [u64; ConnectFailure::COUNT],
    /// From `connect()` to the end of the handshake in the last minute; null for none.
    #[serde(serialize_with = "wait")]
    pub latency_p50: Option<u64>,
    /// The same.
    #[serde(serialize_with = "wait")]
    pub latency_p99: Option<u64>,
    /// Failures by seconds, the latest last.
    #[serde(skip)]
    pub trend: Vec<u32>,
}

/// Connections that were reset.
#[derive(Clone, Debug, Serialize)]
pub struct ResetRow {
    /// Whose, and how.
    #[serde(flatten)]
    pub reset: Reset,
    /// Resets.
    pub resets: u64,
    /// A second.
    pub resets_per_second: f64,
    /// Resets by seconds, the latest last.
    #[serde(skip)]
    pub trend: Vec<u32>,
}

/// One number of the whole machine, or of all that is shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Total {
    /// So far.
    pub count: u64,
    /// A second.
    pub per_second: f64,
    /// By seconds, the latest last.
    #[serde(skip)]
    pub trend: Vec<u32>,
}

/// Everything that is shown at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tables {
    /// [`SCHEMA_VERSION`].
    pub schema_version: SchemaVersion,
    /// For how long it has been watched.
    pub watched_seconds: u64,
    /// Network namespaces.
    pub namespaces: usize,
    /// Rows that did not fit.
    pub rows_left_out: usize,
    /// Listen drops.
    pub drops: Total,
    /// Segments sent again.
    pub retransmitted: Total,
    /// Outgoing handshakes that failed.
    pub connects_failed: Total,
    /// Resets, sent and received.
    pub reset: Total,
    /// Listeners.
    pub listeners: Vec<ListenerRow>,
    /// Retransmissions.
    pub retransmits: Vec<RetransmitRow>,
    /// Outgoing handshakes.
    pub connects: Vec<ConnectRow>,
    /// Resets.
    pub resets: Vec<ResetRow>,
    /// What a diagnosis says; null when the source makes none.
    #[serde(serialize_with = "shared")]
    pub diagnosis: Option<Arc<Diagnosis>>,
    /// What was found in the window before the diagnosis', and not since.
    pub earlier_findings: Vec<Finding>,
    /// What was lost, by probe and reason.
    pub lost: Vec<Lost>,
}

/// Always [`SCHEMA_VERSION`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchemaVersion;

impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(SCHEMA_VERSION)
    }
}

impl Tables {
    /// Every finding, and whether it is of the window before.
    pub fn findings(&self) -> impl Iterator<Item = (&Finding, bool)> {
        let now = self.diagnosis.iter();
        let now = now.flat_map(|diagnosis| &diagnosis.findings);
        let earlier = self.earlier_findings.iter();
        now.map(|finding| (finding, false))
            .chain(earlier.map(|finding| (finding, true)))
    }

    /// What was lost in all.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.iter().map(|lost| lost.count).sum()
    }
}

fn shared<S: Serializer>(
    diagnosis: &Option<Arc<Diagnosis>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    diagnosis.as_deref().serialize(serializer)
}

fn wait<S: Serializer>(ns: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    ns.map(Wait::of).serialize(serializer)
}

fn as_map<S: Serializer>(pairs: &[(String, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, count)| (name, count)))
}

fn by_type<S: Serializer>(counts: &[u64; TYPES.len()], serializer: S) -> Result<S::Ok, S::Error> {
    let names = TYPES.map(RetransmitType::name);
    serializer.collect_map(names.iter().zip(counts))
}

fn by_error<S: Serializer>(
    counts: &[u64; ConnectFailure::COUNT],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let names = ConnectFailure::ALL.iter().map(|failure| failure.name());
    serializer.collect_map(names.zip(counts))
}
