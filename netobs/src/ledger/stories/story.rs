//! What a story is, as it is shown.

use std::net::SocketAddr;

use netobs_common::{
    connection::ConnectFailure,
    kernel::state_name,
    ledger::{Direction, ResetClass, RetransmitType},
};
use serde::{Serialize, Serializer};

use crate::sys::{cgroup::Workload, owner::Comm};

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The one that called `connect()`.
    Client,
    /// The one that listens.
    Server,
}

impl End {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// Its name in sentences.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Who is at one end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Its address, as it sees it.
    pub address: SocketAddr,
    /// Whether it is on this host: some event came from its own socket, or its listener is known.
    pub here: bool,
    /// Inode number of its network namespace; 0 when not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub netns: u32,
    /// Process id; 0 when not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: u32,
    /// Name of the process.
    #[serde(skip_serializing_if = "Comm::is_empty", serialize_with = "shown")]
    pub process: Comm,
    /// Its container and pod, as far as known.
    #[serde(flatten, serialize_with = "ids")]
    pub workload: Workload,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn shown<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn ids<S: Serializer>(workload: &Workload, serializer: S) -> Result<S::Ok, S::Error> {
    let container = workload
        .container()
        .map(|id| ("container_id", id.to_string()));
    let pod = workload.pod().map(|uid| ("pod_uid", uid.to_string()));
    serializer.collect_map(container.into_iter().chain(pod))
}

/// Something that happened to one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// Segments were sent again by this end.
    Retransmit {
        /// Why.
        #[serde(rename = "type", serialize_with = "retransmit_name")]
        kind: RetransmitType,
        /// How many, over all times.
        segments: u32,
    },
    /// Segments were to be sent again, and this end's stack could not send them.
    RetransmitFailed,
    /// The handshake completed at the client.
    Connected {
        /// From `connect()`.
        latency_ns: u64,
        /// SYNs sent again.
        syn_retransmits: u32,
    },
    /// The handshake failed at the client.
    ConnectFailed {
        /// Why.
        #[serde(rename = "error_type", serialize_with = "failure_name")]
        failure: ConnectFailure,
        /// From `connect()`.
        latency_ns: u64,
        /// SYNs sent again.
        syn_retransmits: u32,
    },
    /// The listener dropped a packet of the handshake.
    ListenDrop {
        /// Connections in its accept queue.
        queue: u32,
        /// How many it takes.
        limit: u32,
    },
    /// `accept()` took the connection.
    Accepted {
        /// From the end of the handshake.
        waited_ns: u64,
    },
    /// This end's stack sent or received a RST.
    Reset {
        /// Which.
        #[serde(serialize_with = "direction_name")]
        direction: Direction,
        /// What it was about.
        #[serde(serialize_with = "class_name")]
        class: ResetClass,
        /// `skc_state` of this end before.
        #[serde(serialize_with = "state_text")]
        state: u8,
        /// Since this end last sent or received data; 0 when not known.
        idle_ns: u64,
    },
}

macro_rules! by_name {
    ($($function:ident($type:ty);)+) => {$(
        fn $function<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(value.name())
        }
    )+};
}

by_name! {
    retransmit_name(RetransmitType);
    failure_name(ConnectFailure);
    direction_name(Direction);
    class_name(ResetClass);
}

fn state_text<S: Serializer>(value: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state_name(*value))
}

/// One thing that happened, once or several times in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// CLOCK_MONOTONIC, ns: the first time.
    pub at_ns: u64,
    /// CLOCK_MONOTONIC, ns: the last time.
    pub until_ns: u64,
    /// How often.
    pub times: u32,
    /// To which end.
    pub end: End,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What is known of the client's SYNs that nobody answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unanswered {
    /// SYNs without an answer.
    pub syns: u32,
    /// Those sent while the listener's accept queue was full and it dropped.
    pub queue_full: u32,
    /// Those sent while the listener dropped, its accept queue not full when looked at.
    pub dropped: u32,
}

/// What became of one connection, told from both ends where both are on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Story {
    /// In plain words.
    pub text: String,
    /// CLOCK_MONOTONIC, ns: `connect()`, or the first that is known.
    pub began_ns: u64,
    /// CLOCK_MONOTONIC, ns: the latest event.
    pub until_ns: u64,
    /// The end that called `connect()`.
    pub client: Side,
    /// The end that listens.
    pub server: Side,
    /// Whether the two ends are told apart by what happened, not only by their ports.
    pub roles_known: bool,
    /// SYNs that nobody answered, and what the listener did at that time.
    pub unanswered: Unanswered,
    /// What happened, in order.
    pub moments: Vec<Moment>,
    /// How many more moments there were.
    pub left_out: u32,
}

impl Story {
    /// How much there is to be explained: what failed before what took long before what was only
    /// sent again.
    #[must_use]
    pub fn weight(&self) -> u32 {
        let weigh = |moment: &Moment| match moment.what {
            What::ConnectFailed { .. } => 60,
            What::ListenDrop { .. } => 50,
            What::Reset { .. } => 40,
            What::Connected {
                syn_retransmits, ..
            } if syn_retransmits > 0 => 30,
            What::RetransmitFailed => 20,
            What::Retransmit { .. } => 10,
            What::Accepted { .. } | What::Connected { .. } => 5,
        };
        let worst = self.moments.iter().map(weigh).max().unwrap_or(0);
        let full = if self.unanswered.queue_full > 0 {
            30
        } else {
            0
        };
        worst + full
    }
}
