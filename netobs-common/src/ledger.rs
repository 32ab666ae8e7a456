//! The counts that live in the kernel: exact at any event rate, read by the agent when asked.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

use crate::{
    owner::{Owner, OwnerKey},
    probe::Loss,
};

/// What one program did on one CPU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ProbeCounts {
    /// Events that the program handled (not: invocations that it filtered out).
    pub events: u64,
    /// What it lost, indexed by [`Loss`].
    pub lost: [u64; Loss::COUNT],
}

/// Which end of the connection the local socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, TryFromBytes, Immutable)]
#[repr(u8)]
pub enum Role {
    /// The local port is, or was, listened on.
    Server = 0,
    /// Anything else.
    Client = 1,
}

impl Role {
    /// The value of the `role` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// Why a segment was retransmitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, TryFromBytes, Immutable)]
#[repr(u8)]
pub enum RetransmitType {
    /// The retransmission timer expired, or slow start after it.
    Timeout = 0,
    /// Fast retransmit or RACK, in recovery.
    Fast = 1,
    /// Tail loss probe that repeats old data.
    TailLossProbe = 2,
    /// A SYN of an outgoing connection.
    Syn = 3,
    /// A SYN-ACK of an incoming connection.
    SynAck = 4,
    /// Counted by the kernel for this socket, but not seen as an event.
    Other = 5,
}

impl RetransmitType {
    /// The value of the `type` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Fast => "fast",
            Self::TailLossProbe => "tail_loss_probe",
            Self::Syn => "syn",
            Self::SynAck => "syn_ack",
            Self::Other => "other",
        }
    }
}

/// What retransmissions are attributed to.
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
pub struct RetransmitKey {
    /// Whose sockets.
    pub owner: OwnerKey,
    /// Local port of a server, remote port of a client (0: ephemeral), host byte order.
    pub port: u16,
    /// A [`Role`].
    pub role: u8,
    /// A [`RetransmitType`].
    pub kind: u8,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

/// Retransmissions of one key on one CPU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RetransmitCounts {
    /// Segments, as `RetransSegs` counts them.
    pub segments: u64,
    /// Attempts that the stack could not send.
    pub failures: u64,
    /// Segments with the SYN flag, as `TCPSynRetrans` counts them.
    pub syn_segments: u64,
}

/// Which way a RST went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, TryFromBytes, Immutable)]
#[repr(u8)]
pub enum Direction {
    /// This host sent it.
    Sent = 0,
    /// The peer sent it.
    Received = 1,
}

impl Direction {
    /// The value of the `direction` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// What a RST was about, by what the socket and the packet show: known on every kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, TryFromBytes, Immutable)]
#[repr(u8)]
pub enum ResetClass {
    /// An established (or closing) connection.
    Connection = 0,
    /// The answer to a SYN for a port on which nothing listens.
    Refused = 1,
    /// The process ended the connection hard: SO_LINGER 0, or it closed with unread data.
    Abort = 2,
    /// A handshake at a listener: an invalid ACK, mostly.
    Handshake = 3,
    /// The answer to another packet without a socket.
    NoSocket = 4,
    /// The accept queue was full, and `tcp_abort_on_overflow` is on. Kernels without reasons of resets
    /// (before 6.10) show it as [`ResetClass::Handshake`].
    Overflow = 5,
}

impl ResetClass {
    /// The value of the `reason` label where the kernel gives none.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Refused => "refused",
            Self::Abort => "abort",
            Self::Handshake => "handshake",
            Self::NoSocket => "no_socket",
            Self::Overflow => "overflow",
        }
    }
}

/// What resets are attributed to.
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
pub struct ResetKey {
    /// Whose socket.
    pub owner: OwnerKey,
    /// `enum sk_rst_reason` of this kernel, or [`crate::event::NO_RESET_REASON`].
    pub reason: u32,
    /// Local port of a server, remote port of a client (0: ephemeral), host byte order.
    pub port: u16,
    /// A [`Role`].
    pub role: u8,
    /// A [`Direction`].
    pub direction: u8,
    /// `skc_state` before the reset; 0 without a socket.
    pub state: u8,
    /// A [`ResetClass`].
    pub class: u8,
    /// Keeps the size a multiple of eight.
    pub reserved: [u8; 6],
}

/// How far the segments of one socket have been accounted for.
///
/// `tcp_sock.total_retrans` is the arbiter in every kernel: the difference since the last look is
/// what `RetransSegs` rose by, whether or not an event told of it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SocketRetransmits {
    /// Remote port << 32 | IPv4 address: tells a socket from another that had its address before.
    /// (The local port does not: it is given back before the last look.)
    pub peer: u64,
    /// `total_retrans` up to which segments have been attributed.
    pub accounted: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

/// A port of a namespace that something listens or listened on.
#[derive(
    Clone,
    Copy,
    Debug,
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
pub struct ServerPort {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Host byte order.
    pub port: u32,
}

/// At which packet of the handshake a listener dropped a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Stage {
    /// The client's SYN.
    Syn = 0,
    /// The ACK that would have completed the handshake.
    Ack = 1,
    /// Neither (an ICMP error ended the handshake), or not known.
    Other = 2,
}

impl Stage {
    /// Every stage, in index order.
    pub const ALL: [Self; 3] = [Self::Syn, Self::Ack, Self::Other];

    /// The value of the `stage` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Ack => "ack",
            Self::Other => "other",
        }
    }
}

/// Why a listener dropped a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Reason {
    /// The accept queue was full: the process does not accept fast enough for its limit.
    AcceptQueueFull = 0,
    /// The SYN queue was full and SYN cookies are off.
    SynQueueFull = 1,
    /// Anything else: no memory, no route, not a unicast address, a security module...
    Other = 2,
}

impl Reason {
    /// Every reason, in index order.
    pub const ALL: [Self; 3] = [Self::AcceptQueueFull, Self::SynQueueFull, Self::Other];

    /// The value of the `reason` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AcceptQueueFull => "accept_queue_full",
            Self::SynQueueFull => "syn_queue_full",
            Self::Other => "other",
        }
    }
}

/// Listen drops by [`Stage`] and [`Reason`], and overflows by [`Stage`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ListenCounts {
    /// To be held against ListenDrops.
    pub drops: [[u64; Reason::ALL.len()]; Stage::ALL.len()],
    /// To be held against ListenOverflows.
    pub overflows: [u64; Stage::ALL.len()],
}

/// What became of SYN cookies, index into [`Listener::cookies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum CookieOutcome {
    /// A SYN was answered with a cookie, as SyncookiesSent counts them.
    Sent = 0,
    /// A final ACK had a valid cookie, as SyncookiesRecv counts them.
    Received = 1,
    /// A final ACK had none, or one that is too old, as SyncookiesFailed counts them.
    Failed = 2,
}

impl CookieOutcome {
    /// Every outcome, in index order.
    pub const ALL: [Self; 3] = [Self::Sent, Self::Received, Self::Failed];

    /// The value of the `outcome` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Failed => "failed",
        }
    }
}

/// Upper bounds of an accept queue's length over its limit, in percent; it overflows when it would
/// exceed 100 by one connection.
pub const FILL_BOUNDS_PERCENT: [u32; 6] = [0, 25, 50, 75, 90, 100];

/// How full an accept queue was right after each connection that entered it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct QueueFills {
    /// By the bounds of [`FILL_BOUNDS_PERCENT`], the last without one; not cumulative.
    pub buckets: [u64; FILL_BOUNDS_PERCENT.len() + 1],
    /// Sum of the ratios, in millionths.
    pub sum_millionths: u64,
}

/// A [`Listener::asked`] that was not seen: the socket is older than the agent, or its `listen()` was
/// no plain system call. No argument reads so: one that is negative as an `int` is kept as
/// [`i32::MAX`], which to the kernel is the same (as much as `somaxconn` allows).
pub const ASKED_UNKNOWN: u32 = u32::MAX;

/// A listening socket, kept from `listen()` (or discovery) to `tcp_destroy_sock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listener {
    /// CLOCK_MONOTONIC ns at which it was first seen; with the socket's address, its identity.
    pub opened_ns: u64,
    /// Inode of the socket's file; 0 when it has none.
    pub inode: u64,
    /// Tier 1: what the kernel's own counters rose by while it handled a packet of this listener.
    pub counts: ListenCounts,
    /// Tier 1: SYN cookies by [`CookieOutcome`].
    pub cookies: [u64; CookieOutcome::ALL.len()],
    /// How full the accept queue was after connections that entered it.
    pub fills: QueueFills,
    /// Tier 1: connections put into the accept queue.
    pub enqueued: u64,
    /// Tier 1: connections taken by `accept()`.
    pub accepted: u64,
    /// Tier 2: packets dropped with this listener as `rx_sk` that are in `sk_drops` but are not
    /// listen drops by themselves, each counted max(1, gso_segs).
    pub discards: u64,
    /// Tier 2: final ACKs of handshakes that were dropped (`TCP_LISTEN_OVERFLOW`).
    pub ack_drops: u64,
    /// Tier 2: packets dropped in the SYN cookie check: each may be a listen drop or an invalid
    /// cookie.
    pub cookie_discards: u64,
    /// `sk_drops` when it was first seen.
    pub base_drops: u32,
    /// Longest accept queue right after an enqueue since the last reading.
    pub peak: u32,
    /// Who called `listen()`; without process when that was before the agent.
    pub owner: Owner,
    /// Host byte order.
    pub local_port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// What `listen()` asked for, or [`ASKED_UNKNOWN`].
    pub asked: u32,
    /// IPv4 in the first four bytes, or IPv6; network byte order.
    pub local_address: [u8; 16],
    /// `sk_max_ack_backlog` when `asked` was seen. Another one now is of a further `listen()`, which
    /// no event tells of.
    pub granted: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

/// What a listener's socket said when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketReading {
    /// Address of the `struct sock`: an identifier, never followed by the agent.
    pub sk: u64,
    /// CLOCK_MONOTONIC, ns.
    pub ktime_ns: u64,
    /// `sk_drops`, wrapping.
    pub drops: u32,
    /// `sk_ack_backlog`: connections that wait for `accept()`.
    pub ack_backlog: u32,
    /// `sk_max_ack_backlog`: the lesser of the `listen()` argument and `somaxconn`.
    pub max_ack_backlog: u32,
    /// `icsk_accept_queue.qlen`: requests in the SYN queue.
    pub syn_queue: u32,
}

/// A listener's socket, and the counts kept for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenerReading {
    /// What the socket said.
    pub socket: SocketReading,
    /// Who it is, and the counts kept for it.
    pub listener: Listener,
}

impl ListenerReading {
    /// Listen drops since the listener was first seen, by the identity of kernels whose
    /// `kfree_skb` names the receiving socket: `sk_drops` less the packets that were dropped for
    /// other reasons. May be one too high while such a packet is between its two counts.
    #[must_use]
    pub fn listen_drops(&self) -> i64 {
        i64::from(self.socket.drops.wrapping_sub(self.listener.base_drops))
            .wrapping_sub(i64::from_ne_bytes(self.listener.discards.to_ne_bytes()))
    }
}

/// A call of one of the kernel's functions that count listen drops, under way on this CPU.
///
/// The functions run with softirqs off, so that between entry and exit no other TCP code runs on
/// the CPU: what its slots of the counters rise by is this call's doing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Frame {
    /// Address of the listener.
    pub sk: u64,
    /// Address of the packet; 0 when there is none in hand.
    pub skb: u64,
    /// This CPU's slots of the namespace's `struct linux_mib`.
    pub mib: u64,
    /// ListenOverflows and ListenDrops at entry.
    pub listen: [u64; 2],
    /// TCPReqQFullDrop at entry.
    pub syn_queue_full: u64,
    /// SyncookiesSent, SyncookiesRecv and SyncookiesFailed at entry.
    pub cookies: [u64; 3],
    /// How many calls are nested; 0: none is under way.
    pub depth: u32,
    /// The outermost function: a [`crate::probe::Program`].
    pub function: u32,
}

/// The event that the first of two programs on one tracepoint has in hand on a CPU, for the second
/// one to know (see `turns` in netobs-ebpf).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Turn {
    /// What tells the event from others that are under way on the CPU: an address, and something of
    /// what happens to what is there.
    pub event: [u64; 2],
    /// The one that was in hand before it.
    pub before: [u64; 2],
    /// The event that the second program hands over to the first one's body; zeros when there is none.
    pub handed: [u64; 2],
    /// Events that were handed over.
    pub stood_in: u64,
}

/// What turns a per-CPU pointer of the kernel into this CPU's address.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PerCpuDisplacement {
    /// `__per_cpu_offset[cpu]`.
    pub offset: u64,
    /// Non-zero once `offset` is known.
    pub known: u64,
    /// Where a pointer becomes a number for the verifier.
    pub laundry: u64,
}
