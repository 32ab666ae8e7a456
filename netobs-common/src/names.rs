//! Names of maps and globals in the eBPF object: the kernel side defines them, the agent opens them.

/// Ring buffer of [`crate::event`]s.
pub const EVENTS: &str = "EVENTS";
/// Per-CPU [`crate::ledger::ProbeCounts`], indexed by [`crate::probe::Program`].
pub const PROBE_COUNTS: &str = "PROBE_COUNTS";
/// Per-CPU hash of [`crate::ledger::RetransmitCounts`] by [`crate::ledger::RetransmitKey`].
pub const RETRANSMITS: &str = "RETRANSMITS";
/// Hash of [`crate::ledger::SocketRetransmits`] by socket address.
pub const SOCKETS: &str = "SOCKETS";
/// Hash of [`crate::ledger::Listener`] by socket address.
pub const LISTENERS: &str = "LISTENERS";
/// Queue of [`crate::ledger::ListenerReading`]: the final readings of listeners that are gone.
pub const CLOSED_LISTENERS: &str = "CLOSED_LISTENERS";
/// Hash of [`crate::ledger::ServerPort`]: ports that something listens or listened on.
pub const SERVER_PORTS: &str = "SERVER_PORTS";
/// Two `u32`: non-zero once every socket that existed at start has been seen; and once for one that has
/// retransmitted there was no room.
pub const BASELINED: &str = "BASELINED";
/// Hash of `u64` counts by [`crate::burst::BurstKey`].
pub const BURSTS: &str = "BURSTS";
/// Hash of [`crate::connection::Connection`] by socket address.
pub const CONNECTIONS: &str = "CONNECTIONS";
/// Hash of [`crate::connection::Listening`] by [`crate::connection::ListenerKey`].
pub const LISTENING: &str = "LISTENING";
/// Per-CPU hash of [`crate::connection::ConnectCounts`] by [`crate::connection::ConnectKey`].
pub const CONNECTS: &str = "CONNECTS";
/// Per-CPU hash of [`crate::connection::AcceptCounts`] by [`crate::connection::ListenerKey`].
pub const ACCEPTS: &str = "ACCEPTS";
/// Per-CPU hash of `u64` by [`crate::ledger::ResetKey`].
pub const RESETS: &str = "RESETS";
/// One `u64`: a bit by [`crate::event::EventKind`] whose every event is wanted.
pub const WANTED: &str = "WANTED";
/// Hash of [`crate::dns::Lookup`] by [`crate::dns::LookupKey`]: lookups that wait for an answer.
pub const DNS_WAITING: &str = "DNS_WAITING";
/// Hash of [`crate::dns::GivenUp`] by [`crate::dns::LookupKey`]: lookups that were given up lately.
pub const DNS_GIVEN_UP: &str = "DNS_GIVEN_UP";
/// Hash of [`crate::dns::AnswerCounts`] by [`crate::dns::AnswerKey`].
pub const DNS_ANSWERS: &str = "DNS_ANSWERS";
/// Hash of [`crate::dns::DnsCounts`] by [`crate::owner::OwnerKey`].
pub const DNS_COUNTS: &str = "DNS_COUNTS";
/// One [`crate::dns::DnsControl`].
pub const DNS_CONTROL: &str = "DNS_CONTROL";
/// Per-CPU [`crate::ledger::Turn`], indexed by [`crate::probe::Relieved`].
pub const TURNS: &str = "TURNS";
/// Program array of one element, for the second program on the tracepoint `inet_sock_set_state`.
pub const SET_STATE_BODY: &str = "SET_STATE_BODY";
/// The same for `kfree_skb`.
pub const KFREE_SKB_BODY: &str = "KFREE_SKB_BODY";
/// The same for `tcp_send_reset`.
pub const SEND_RESET_BODY: &str = "SEND_RESET_BODY";
/// The same for `tcp_receive_reset`.
pub const RECEIVE_RESET_BODY: &str = "RECEIVE_RESET_BODY";
/// Read-only global: [`crate::kernel::Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// Read-only global: `[u32; Offset::COUNT]`, see [`crate::offsets`].
pub const OFFSETS: &str = "OFFSETS";
