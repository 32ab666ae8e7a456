//! What the kernel side must know about the running kernel besides [`crate::offsets`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `TCP_LISTEN` (include/net/tcp_states.h).
pub const TCP_LISTEN: u8 = 10;
/// `TCP_CLOSE`.
pub const TCP_CLOSE: u8 = 7;
/// `TCP_SYN_SENT`.
pub const TCP_SYN_SENT: u8 = 2;
/// `TCP_TIME_WAIT`.
pub const TCP_TIME_WAIT: u8 = 6;
/// `TCP_NEW_SYN_RECV`: a request in the SYN queue.
pub const TCP_NEW_SYN_RECV: u8 = 12;
/// `TCP_SYN_RECV`.
pub const TCP_SYN_RECV: u8 = 3;
/// `TCP_LAST_ACK`.
pub const TCP_LAST_ACK: u8 = 9;
/// `TCP_ESTABLISHED`.
pub const TCP_ESTABLISHED: u8 = 1;

/// The name of a `skc_state`, as `ss` prints it; empty for what is none.
#[must_use]
pub const fn state_name(state: u8) -> &'static str {
    match state {
        1 => "ESTABLISHED",
        2 => "SYN_SENT",
        3 => "SYN_RECV",
        4 => "FIN_WAIT1",
        5 => "FIN_WAIT2",
        6 => "TIME_WAIT",
        7 => "CLOSE",
        8 => "CLOSE_WAIT",
        9 => "LAST_ACK",
        10 => "LISTEN",
        11 => "CLOSING",
        12 => "NEW_SYN_RECV",
        _ => "",
    }
}

/// Most ranges of kernel text that a list of functions may occupy, `.cold` parts included.
pub const MAX_RANGES: usize = 16;

/// What of a `struct net` tells one namespace from another that had its number before.
///
/// A cookie is never used again; kernels from 5.12 on give one to every namespace at its birth. Before,
/// it is 0 until somebody asks for it, so the 32 random bits take its place that every namespace is
/// given for its hash tables (net/core/net_namespace.c).
pub mod identity {
    /// Nothing: only the inode number is known.
    pub const NONE: u32 = 0;
    /// `net_cookie`.
    pub const COOKIE: u32 = 1;
    /// `hash_mix`.
    pub const HASH_MIX: u32 = 2;
}

/// A value of `enum skb_drop_reason` that this kernel does not have.
pub const NO_REASON: u32 = u32::MAX;

/// The cgroup is that of the unified hierarchy (cgroup v2).
pub const UNIFIED_CGROUP: u32 = u32::MAX;

/// Half-open range of kernel text addresses; an empty one is `[0, 0)`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TextRange {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

/// Read-only global of the kernel side, set before it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// Functions whose `kfree_skb` of a packet follows a `sk_drops_add` on the listener (see
    /// `kfree_skb` in netobs-ebpf).
    pub discard_ranges: [TextRange; MAX_RANGES],
    /// `cookie_v4_check` and `cookie_v6_check`: a discard there is at most one listen drop.
    pub cookie_ranges: [TextRange; MAX_RANGES],
    /// `SKB_DROP_REASON_TCP_CSUM`, or [`NO_REASON`].
    pub reason_tcp_csum: u32,
    /// `SKB_DROP_REASON_TCP_LISTEN_OVERFLOW`, or [`NO_REASON`].
    pub reason_listen_overflow: u32,
    /// `SKB_DROP_REASON_TCP_RFC7323_TW_PAWS`, or [`NO_REASON`].
    pub reason_tw_paws: u32,
    /// 1 when `tcp_retransmit_skb` has a third argument `err` and fires on failures too.
    pub retransmit_err: u32,
    /// First port of `net.ipv4.ip_local_port_range`: remote ports from there on fold to 0.
    pub ephemeral_low: u32,
    /// Bytes from the start of `struct linux_mib` to ListenOverflows; ListenDrops follows it.
    pub mib_listen: u32,
    /// Bytes from the start of `struct linux_mib` to TCPReqQFullDrop.
    pub mib_syn_queue_full: u32,
    /// Bytes from the start of `struct linux_mib` to SyncookiesSent, which SyncookiesRecv and
    /// SyncookiesFailed follow; 0 when they do not.
    pub mib_cookies: u32,
    /// Whose hierarchy containers are in: the `enum cgroup_subsys_id` of a cgroup v1 controller, or
    /// [`UNIFIED_CGROUP`].
    pub cgroup_subsystem: u32,
    /// Waits in the accept queue from this many ns on have an event without being asked for.
    pub slow_accept_ns: u32,
    /// 1 when `tcp_send_reset` has a third argument `reason`, and fires without a socket too.
    pub reset_reason: u16,
    /// `SK_RST_REASON_INVALID_SYN`, with which a listener answers the last packet of a handshake when
    /// its queue is full and `tcp_abort_on_overflow` is on; 0 where there is none.
    pub reset_invalid_syn: u16,
    /// Length of a jiffy, ns.
    pub jiffy_ns: u32,
    /// How a namespace is told from another with its number: one of [`identity`].
    pub net_identity: u32,
    /// 1 when the kernel has the helper `bpf_get_current_task_btf` (since 5.11), whose result can be read
    /// by plain loads.
    pub typed_task: u32,
    /// Layout of the records of classic tracepoints.
    pub classic: Classic,
    /// Where the argument of `listen()` is found.
    pub listen_call: ListenCall,
}

/// Where the registers of a task's system call, and in them its number and second argument, are.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ListenCall {
    /// 1 when the rest is known and the kernel has the helper `bpf_task_pt_regs` (since 5.15).
    pub known: u32,
    /// Offset of the system call's number in `struct pt_regs`.
    pub number: u32,
    /// Offset of its second argument.
    pub argument: u32,
    /// The number of `listen()`.
    pub listen: u32,
}

/// Offsets of fields in the records of classic tracepoints, read from their `format` files.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Classic {
    /// `sport` of `tcp:tcp_retransmit_skb`, host byte order.
    pub retransmit_sport: u32,
    /// `dport` of `tcp:tcp_retransmit_skb`, host byte order.
    pub retransmit_dport: u32,
    /// `state` of `tcp:tcp_retransmit_skb`.
    pub retransmit_state: u32,
    /// `err` of `tcp:tcp_retransmit_skb`, or 0 on kernels that fire on success only.
    pub retransmit_err: u32,
    /// `sport` of `tcp:tcp_retransmit_synack`, host byte order.
    pub synack_sport: u32,
    /// `ret` of `syscalls:sys_exit_accept` and `sys_exit_accept4`.
    pub accept_result: u32,
}

impl Settings {
    /// Settings of a kernel about which nothing is known.
    pub const UNKNOWN: Self = Self {
        discard_ranges: [TextRange { start: 0, end: 0 }; MAX_RANGES],
        cookie_ranges: [TextRange { start: 0, end: 0 }; MAX_RANGES],
        reason_tcp_csum: NO_REASON,
        reason_listen_overflow: NO_REASON,
        reason_tw_paws: NO_REASON,
        retransmit_err: 0,
        ephemeral_low: 32768,
        mib_listen: 0,
        mib_syn_queue_full: 0,
        mib_cookies: 0,
        cgroup_subsystem: UNIFIED_CGROUP,
        slow_accept_ns: 100_000_000,
        reset_reason: 0,
        reset_invalid_syn: 0,
        jiffy_ns: 4_000_000,
        net_identity: identity::NONE,
        typed_task: 0,
        classic: Classic {
            retransmit_sport: 0,
            retransmit_dport: 0,
            retransmit_state: 0,
            retransmit_err: 0,
            synack_sport: 0,
            accept_result: 0,
        },
        listen_call: ListenCall {
            known: 0,
            number: 0,
            argument: 0,
            listen: 0,
        },
    };
}
