//! What a source tells at one moment: plain data, whatever it came from.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use netobs_common::{
    connection::{ConnectFailure, Latencies},
    ledger::RetransmitType,
};
use serde::Serialize;

use crate::diagnose::{Diagnosis, Finding};

/// Whose sockets: as far as known, else empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Who {
    /// Inode number of the network namespace; null when the method cannot tell.
    pub netns: Option<u32>,
    /// Name of the process.
    pub process: String,
    /// 12 digits of the container's id.
    pub container_id: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// What Kubernetes calls the pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container in it.
    pub container: String,
}

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Listener {
    /// Who listens.
    #[serde(flatten)]
    pub who: Who,
    /// The address.
    #[serde(rename = "local_address")]
    pub address: IpAddr,
    /// The port.
    #[serde(rename = "local_port")]
    pub port: u16,
}

/// A listening address at one moment; counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// Sockets that listen.
    pub sockets: u64,
    /// Connections that wait for `accept()`.
    pub queue: u64,
    /// Longest queue in the last full minute.
    pub peak: u64,
    /// The limit in force.
    pub limit: u64,
    /// Requests in the SYN queue.
    pub syn_queue: u64,
    /// Whether `somaxconn` cut what `listen()` was asked for; `None` when that is not known.
    pub cut: Option<bool>,
    /// Listen drops.
    pub drops: u64,
    /// Of those, because the accept queue was full.
    pub overflows: u64,
    /// Listen drops by stage and reason, those that there are.
    pub drops_by: Vec<(String, u64)>,
    /// Connections taken by `accept()`.
    pub accepts: u64,
    /// From the end of the handshake to `accept()`.
    pub latency: Latencies,
}

/// Sockets that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Sockets {
    /// Whose.
    #[serde(flatten)]
    pub who: Who,
    /// `server` or `client`.
    pub role: String,
    /// Local port of a server, remote port of a client; 0 when ephemeral.
    pub port: u16,
}

/// What was sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retransmitted {
    /// Segments, indexed by [`RetransmitType`].
    pub segments: [u64; RetransmitType::Other as usize + 1],
    /// Attempts that the stack could not send.
    pub failures: u64,
}

/// Outgoing handshakes that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Connects {
    /// Who connects.
    #[serde(flatten)]
    pub who: Who,
    /// Remote port; 0 when ephemeral.
    pub port: u16,
}

/// What became of outgoing handshakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// Under way: SYNs that nobody has answered yet.
    pub waiting: u64,
    /// Those that did not complete, by [`ConnectFailure`].
    pub failures: [u64; ConnectFailure::COUNT],
    /// Those that completed.
    pub latency: Latencies,
}

/// Resets that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Reset {
    /// Whose sockets.
    #[serde(flatten)]
    pub sockets: Sockets,
    /// `sent` or `received`.
    pub direction: String,
    /// State of the connection before; empty when there was none.
    pub state: String,
    /// Why.
    pub reason: String,
}

/// Something that the source could not count in detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Which probe's.
    pub probe: String,
    /// Why.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// When, on a clock that only goes forward.
    pub at: Duration,
    /// Listeners.
    pub listeners: BTreeMap<Listener, Listening>,
    /// Retransmissions.
    pub retransmits: BTreeMap<Sockets, Retransmitted>,
    /// Outgoing handshakes.
    pub connects: BTreeMap<Connects, Connected>,
    /// Resets.
    pub resets: BTreeMap<Reset, u64>,
    /// Network namespaces that are observed.
    pub namespaces: usize,
    /// What was lost since the start, by probe and reason.
    pub lost: Vec<Lost>,
    /// What a diagnosis says, of a window that ends now; `None` when the source makes none.
    pub diagnosis: Option<Arc<Diagnosis>>,
    /// What was found in the window before, and not since.
    pub earlier: Vec<Finding>,
}

impl Reading {
    /// How many rows do not fit into the sheets ([`super::MOST_ROWS`] each).
    #[must_use]
    pub fn beyond(&self) -> usize {
        let sizes = [
            self.listeners.len(),
            self.retransmits.len(),
            self.connects.len(),
            self.resets.len(),
        ];
        let over = sizes.map(|size| size.saturating_sub(super::MOST_ROWS));
        over.iter().sum()
    }
}

impl Who {
    /// The pod, else the container, by name, else by id; empty for neither.
    #[must_use]
    pub fn workload(&self) -> String {
        if !self.pod.is_empty() {
            format!("{}/{}", self.namespace, self.pod)
        } else if !self.pod_uid.is_empty() {
            self.pod_uid.clone()
        } else if !self.container.is_empty() {
            self.container.clone()
        } else {
            self.container_id.clone()
        }
    }
}
