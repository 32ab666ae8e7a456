//! Name lookups over UDP port 53: what the kernel side keeps of each, and its counts.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    event::Endpoints,
    owner::{Owner, OwnerKey},
};

/// The port of name servers.
pub const DNS_PORT: u16 = 53;
/// Most bytes that are kept of a question. A valid one has at most 259: a name of 255, type, class.
pub const QUESTION_BYTES: usize = 264;
/// An answer that comes this long after its lookup was given up is still told from one that nobody
/// asked for.
pub const LATE_NS: u64 = 60_000_000_000;
/// Upper bounds of the latency buckets, ns; another bucket follows for what took longer.
pub const LATENCY_BOUNDS_NS: [u64; 14] = [
    250_000,
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
    2_500_000_000,
    5_000_000_000,
];
/// How many different response codes a message's header can hold.
pub const RESPONSE_CODES: u32 = 16;

/// What the agent tells the kernel side while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DnsControl {
    /// Without an answer for this long, a lookup is unanswered.
    pub timeout_ns: u64,
    /// A lookup that took longer has an event.
    pub slow_ns: u64,
}

impl Default for DnsControl {
    fn default() -> Self {
        Self {
            // What the C libraries wait before they ask again (RES_TIMEOUT in <resolv.h>).
            timeout_ns: 5_000_000_000,
            slow_ns: 250_000_000,
        }
    }
}

/// What a query and its answer have in common, whatever is done to their addresses in between.
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
pub struct LookupKey {
    /// The socket's cookie: never used twice while the kernel runs.
    pub cookie: u64,
    /// The message's id, host byte order.
    pub id: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

/// A lookup: one question of one socket under one id, however often it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Lookup {
    /// CLOCK_MONOTONIC ns at which it was first sent; 0 while the entry is being filled.
    pub started_ns: u64,
    /// The process that sent it first.
    pub owner: Owner,
    /// The socket's end and the server's, as on the wire of the socket's namespace.
    pub ends: Endpoints,
    /// Datagrams sent for it.
    pub sends: u32,
    /// Length of the query's question and what follows it, bytes.
    pub rest_bytes: u32,
    /// The message's id, host byte order.
    pub id: u16,
    /// How many bytes of `question` are filled.
    pub question_bytes: u16,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
    /// What follows the query's header: the question, raw and unchecked, then anything.
    pub question: [u8; QUESTION_BYTES],
}

impl Lookup {
    /// Nothing yet.
    pub const EMPTY: Self = Self {
        started_ns: 0,
        owner: Owner {
            cgroup: 0,
            net: 0,
            netns: 0,
            pid: 0,
            comm: [0; 16],
        },
        ends: Endpoints {
            local_address: [0; 16],
            remote_address: [0; 16],
            local_port: 0,
            remote_port: 0,
            family: 0,
            reserved: 0,
        },
        sends: 0,
        rest_bytes: 0,
        id: 0,
        question_bytes: 0,
        reserved: 0,
        question: [0; QUESTION_BYTES],
    };
}

/// A lookup that was given up, kept for a while to know a late answer by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GivenUp {
    /// CLOCK_MONOTONIC ns at which it was first sent.
    pub started_ns: u64,
    /// Whose it was.
    pub owner: OwnerKey,
}

/// What answered lookups are counted by.
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
pub struct AnswerKey {
    /// Whose.
    pub owner: OwnerKey,
    /// The response code in the answer's header, below [`RESPONSE_CODES`].
    pub response: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

/// Answered lookups of one key.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AnswerCounts {
    /// By time taken, see [`LATENCY_BOUNDS_NS`].
    pub buckets: [u64; LATENCY_BOUNDS_NS.len() + 1],
    /// Sum of the times taken, ns.
    pub sum_ns: u64,
}

/// Everything else that is counted of one owner.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DnsCounts {
    /// Queries sent, each datagram.
    pub queries: u64,
    /// Of those, sent again for a lookup that was waiting already.
    pub repeats: u64,
    /// Lookups without an answer in time, as far as the kernel side saw it: the agent counts those
    /// that it finds waiting too long.
    pub unanswered: u64,
    /// Answers to lookups that had been given up.
    pub late: u64,
    /// Answers with the TC flag: the program asks again over TCP, which is not seen.
    pub truncated: u64,
    /// Answers to nothing that was asked: repeated, forged, or asked before netobs started.
    pub strays: u64,
    /// Datagrams from or to port 53 that are too short to be a message.
    pub malformed: u64,
}
