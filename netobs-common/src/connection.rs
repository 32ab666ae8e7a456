//! Connections: what the kernel side remembers of each, and what it counts of all.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

use crate::owner::{Owner, OwnerKey};

/// What is remembered of one socket, from `connect()` or the end of the handshake to
/// `tcp_destroy_sock`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Connection {
    /// Who called `connect()` or `accept()`; of a connection that waits for `accept()`, who listens.
    pub owner: Owner,
    /// Remote port << 32 | IPv4 address: tells a socket from another that had its address before.
    pub peer: u64,
    /// CLOCK_MONOTONIC ns: `connect()`, or (server) the end of the handshake; 0 for sockets older
    /// than the agent.
    pub begun_ns: u64,
    /// CLOCK_MONOTONIC ns: the end of the handshake; 0 before.
    pub established_ns: u64,
    /// CLOCK_MONOTONIC ns: `accept()`; 0 before, and for clients.
    pub accepted_ns: u64,
    /// Inode of the socket's file, for sockets older than the agent whose process is looked for.
    pub inode: u64,
    /// A [`crate::ledger::Role`].
    pub role: u8,
    /// The `skc_state` that it went to `TCP_CLOSE` from; 0 before.
    pub closed_from: u8,
    /// 1: the listener is bound to every address.
    pub wildcard: u8,
    /// 1: its end has been counted as a failure to connect.
    pub failed: u8,
    /// Local port of a server, host byte order.
    pub local_port: u16,
    /// `AF_INET` or `AF_INET6`, of a server; 0: this and the port are not known.
    pub family: u16,
}

/// The addresses that a listener is bound to.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct ListenerKey {
    /// Identity of the network namespace, see [`crate::kernel::identity`]; 0 where it cannot be told.
    pub net: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Host byte order.
    pub port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// IPv4 in the first four bytes, or IPv6; zeros: every address.
    pub address: [u8; 16],
}

/// Who listens there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Listening {
    /// Of the socket that was opened last.
    pub owner: Owner,
    /// Sockets that listen there: several with SO_REUSEPORT.
    pub sockets: u64,
    /// Address of the one that was opened last.
    pub sk: u64,
}

macro_rules! outcomes {
    ($($(#[$doc:meta])+ $name:ident = $label:literal,)+) => {
        /// Why an outgoing handshake did not complete.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, TryFromBytes, Immutable)]
        #[repr(u8)]
        pub enum ConnectFailure { $($(#[$doc])+ $name,)+ }

        impl ConnectFailure {
            /// Every one, in index order.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The value of the `error_type` label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }
        }
    };
}

outcomes! {
    /// RST to the SYN: nothing listens there (`ECONNREFUSED`).
    Refused = "refused",
    /// `ECONNRESET`.
    Reset = "reset",
    /// The stack gave up sending SYNs (`ETIMEDOUT`).
    TimedOut = "timed_out",
    /// `EHOSTUNREACH`, `EHOSTDOWN`.
    HostUnreachable = "host_unreachable",
    /// `ENETUNREACH`, `ENETDOWN`.
    NetUnreachable = "net_unreachable",
    /// The process closed the socket while its SYN was unanswered: its own time limit, mostly.
    Abandoned = "abandoned",
    /// No SYN left: no free local port, mostly (`EADDRNOTAVAIL`).
    NotSent = "not_sent",
    /// Anything else.
    Other = "other",
}

/// Upper bounds of latencies, in ns. 1, 3, 7, 15 and 31 s are where SYN retransmissions put a
/// handshake.
pub const LATENCY_BOUNDS_NS: [u64; 16] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    1_500_000_000,
    3_500_000_000,
    7_500_000_000,
    15_500_000_000,
    31_500_000_000,
];

/// A histogram of latencies: `buckets[i]` counts those up to `LATENCY_BOUNDS_NS[i]` that are above
/// the bound before; the last counts the rest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Latencies {
    /// Not cumulative.
    pub buckets: [u64; LATENCY_BOUNDS_NS.len() + 1],
    /// ns.
    pub sum_ns: u64,
}

impl Latencies {
    /// Of nothing.
    pub const NONE: Self = Self {
        buckets: [0; LATENCY_BOUNDS_NS.len() + 1],
        sum_ns: 0,
    };

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// What outgoing handshakes are attributed to.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct ConnectKey {
    /// Who called `connect()`.
    pub owner: OwnerKey,
    /// Remote port, host byte order; 0: ephemeral.
    pub port: u16,
    /// Keeps the size a multiple of eight.
    pub reserved: [u16; 3],
}

/// Outgoing handshakes of one key on one CPU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ConnectCounts {
    /// `connect()` calls that began a handshake.
    pub begun: u64,
    /// Time from `connect()` to the end of the handshake, of those that completed.
    pub latency: Latencies,
    /// Of those that did not, by [`ConnectFailure`].
    pub failures: [u64; ConnectFailure::COUNT],
}

/// Connections taken by `accept()` from one listening address on one CPU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AcceptCounts {
    /// Handshakes that completed.
    pub established: u64,
    /// Connections taken by `accept()`.
    pub accepted: u64,
    /// Time from the end of the handshake to `accept()`, where both were seen.
    pub latency: Latencies,
    /// SYNs that a TIME_WAIT socket of an earlier connection refused by their time stamp (PAWS).
    pub refused_in_time_wait: u64,
}

impl ConnectCounts {
    /// Of nothing.
    pub const NONE: Self = Self {
        begun: 0,
        latency: Latencies::NONE,
        failures: [0; ConnectFailure::COUNT],
    };
}

impl AcceptCounts {
    /// Of nothing.
    pub const NONE: Self = Self {
        established: 0,
        accepted: 0,
        latency: Latencies::NONE,
        refused_in_time_wait: 0,
    };
}
