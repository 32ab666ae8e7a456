//! Every map and global of the kernel side. Names are repeated in `netobs_common::names`.
//!
//! Hashes are not preallocated: their memory follows use, and an entry that is deleted while an
//! iterator looks at it stays readable until the end of the RCU grace period.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, ProgramArray, Queue, RingBuf},
};
use netobs_common::{
    burst::BurstKey,
    connection::{AcceptCounts, ConnectCounts, ConnectKey, Connection, ListenerKey, Listening},
    dns::{AnswerCounts, AnswerKey, DnsControl, DnsCounts, GivenUp, Lookup, LookupKey},
    kernel::Settings,
    ledger::{
        Frame, Listener, ListenerReading, PerCpuDisplacement, ProbeCounts, ResetKey,
        RetransmitCounts, RetransmitKey, ServerPort, SocketRetransmits, Turn,
    },
    offsets::Offset,
    owner::OwnerKey,
    probe::{Program, Relieved},
};

/// Bytes of the ring: more than 8,000 retransmissions between two of the agent's looks.
pub(crate) const RING_BYTES: u32 = 1 << 20;

/// Events for the agent.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// What each program did and lost, by [`Program`].
#[map]
pub(crate) static PROBE_COUNTS: PerCpuArray<ProbeCounts> =
    PerCpuArray::with_max_entries(Program::COUNT, 0);

/// Retransmissions by what they are attributed to. 16,384 keys: 500 namespaces with 30 ports each.
#[map]
pub(crate) static RETRANSMITS: PerCpuHashMap<RetransmitKey, RetransmitCounts> =
    PerCpuHashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Sockets that have retransmitted, by address; removed at `tcp_destroy_sock`.
#[map]
pub(crate) static SOCKETS: HashMap<u64, SocketRetransmits> =
    HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// Listeners by address, from `listen()` or discovery to `tcp_destroy_sock`. The agent makes more room
/// on big hosts.
#[map]
pub(crate) static LISTENERS: HashMap<u64, Listener> =
    HashMap::with_max_entries(2_048, BPF_F_NO_PREALLOC);

/// Final readings of listeners that are gone, until the agent takes them ten times a second.
#[map]
pub(crate) static CLOSED_LISTENERS: Queue<ListenerReading> = Queue::with_max_entries(8_192, 0);

/// Where a final reading is put together: it is too big for the stack.
#[map]
pub(crate) static READING: PerCpuArray<ListenerReading> = PerCpuArray::with_max_entries(1, 0);

/// The call under way on each CPU.
#[map]
pub(crate) static FRAMES: PerCpuArray<Frame> = PerCpuArray::with_max_entries(1, 0);

/// Found out once per CPU.
#[map]
pub(crate) static DISPLACEMENT: PerCpuArray<PerCpuDisplacement> =
    PerCpuArray::with_max_entries(1, 0);

/// Which event the first of two programs has in hand, by [`Relieved`].
#[map]
pub(crate) static TURNS: PerCpuArray<Turn> = PerCpuArray::with_max_entries(Relieved::COUNT, 0);

/// The first of the two programs on `inet_sock_set_state`, for the second to hand over to. One map for
/// each tracepoint: the kernel lets no program into a map that one on another tracepoint uses.
#[map]
pub(crate) static SET_STATE_BODY: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The same for `kfree_skb`.
#[map]
pub(crate) static KFREE_SKB_BODY: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The same for `tcp_send_reset`.
#[map]
pub(crate) static SEND_RESET_BODY: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The same for `tcp_receive_reset`.
#[map]
pub(crate) static RECEIVE_RESET_BODY: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Ports that something listens or listened on; the value is not used.
#[map]
pub(crate) static SERVER_PORTS: HashMap<ServerPort, u32> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Counts by bins of 100 ms that the agent has not taken yet. It takes them once a second: there is
/// room for 8,192 bins in which something happened, such as 13 namespaces for a minute.
#[map]
pub(crate) static BURSTS: HashMap<BurstKey, u64> =
    HashMap::with_max_entries(8_192, BPF_F_NO_PREALLOC);

/// Connections by the address of their socket, from `connect()` or the end of the handshake to
/// `tcp_destroy_sock`. 131,072: past that a new one is counted as `map_full` and has no owner but
/// its cgroup.
#[map]
pub(crate) static CONNECTIONS: HashMap<u64, Connection> =
    HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// Who listens on an address.
#[map]
pub(crate) static LISTENING: HashMap<ListenerKey, Listening> =
    HashMap::with_max_entries(8_192, BPF_F_NO_PREALLOC);

/// Outgoing handshakes.
#[map]
pub(crate) static CONNECTS: PerCpuHashMap<ConnectKey, ConnectCounts> =
    PerCpuHashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Waits in accept queues.
#[map]
pub(crate) static ACCEPTS: PerCpuHashMap<ListenerKey, AcceptCounts> =
    PerCpuHashMap::with_max_entries(8_192, BPF_F_NO_PREALLOC);

/// Resets.
#[map]
pub(crate) static RESETS: PerCpuHashMap<ResetKey, u64> =
    PerCpuHashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// One word: a bit by kind of event, set while somebody wants every event of that kind.
#[map]
pub(crate) static WANTED: Array<u64> = Array::with_max_entries(1, 0);

/// First, from the agent: whether every socket that existed at start has been seen. Second: whether for
/// one there was no room among those that have retransmitted.
#[map]
pub(crate) static BASELINED: Array<u32> = Array::with_max_entries(2, 0);

/// Lookups that wait for an answer: five seconds of 3,000 a second that nobody answers. This and the
/// maps below have room for one entry when nobody asked for the probe.
#[map]
pub(crate) static DNS_WAITING: HashMap<LookupKey, Lookup> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Lookups that were given up in the last minute.
#[map]
pub(crate) static DNS_GIVEN_UP: HashMap<LookupKey, GivenUp> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Answered lookups. Shared between CPUs: names are looked up too rarely to want more memory.
#[map]
pub(crate) static DNS_ANSWERS: HashMap<AnswerKey, AnswerCounts> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Everything else about lookups, by owner.
#[map]
pub(crate) static DNS_COUNTS: HashMap<OwnerKey, DnsCounts> =
    HashMap::with_max_entries(8_192, BPF_F_NO_PREALLOC);

/// What the agent says while it runs.
#[map]
pub(crate) static DNS_CONTROL: Array<DnsControl> = Array::with_max_entries(1, 0);

/// Set by the agent before load, constant for the verifier.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings::UNKNOWN;

/// Set by the agent before load, constant for the verifier.
#[unsafe(no_mangle)]
static OFFSETS: [u32; Offset::COUNT] = [0; Offset::COUNT];

/// Where `field` is on this kernel, bytes.
#[inline(always)]
pub(crate) fn offset(field: Offset) -> usize {
    // SAFETY: a static that lives as long as the program; volatile, because the agent replaces its
    // bytes in the object file after the compiler has seen the zeros.
    unsafe { core::ptr::read_volatile(&raw const OFFSETS[field as usize]) as usize }
}

/// Reads one field of [`SETTINGS`].
macro_rules! setting {
    ($($field:tt)+) => {
        // SAFETY: as in `offset`.
        unsafe { core::ptr::read_volatile(&raw const (*crate::maps::settings()).$($field)+) }
    };
}
pub(crate) use setting;

/// Address of the settings, for [`setting!`].
#[inline(always)]
pub(crate) fn settings() -> *const Settings {
    &raw const SETTINGS
}

/// Adds to a counter that several CPUs may add to at once.
///
/// # Safety
///
/// `counter` must point to an aligned `u64` in a map element that the verifier tracks.
#[inline(always)]
pub(crate) unsafe fn add_shared(counter: *mut u64, more: u64) {
    // The BPF target has no compare-and-swap, so `core` offers no atomic addition; the instruction
    // set has had this one from the beginning.
    // SAFETY: the caller's contract; the instruction writes nothing else.
    unsafe {
        core::arch::asm!("lock *(u64 *)({counter} + 0) += {more}", counter = in(reg) counter, more = in(reg) more);
    }
}
