//! A retransmission.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Endpoints, EventHeader};
use crate::owner::Owner;

/// One call of the stack's retransmit function, or one SYN-ACK sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Retransmit {
    /// When and where.
    pub header: EventHeader,
    /// Address of the `struct sock`; for a SYN-ACK, of the listener.
    pub sk: u64,
    /// The connection.
    pub ends: Endpoints,
    /// Whose socket it is; for a SYN-ACK, who listens.
    pub owner: Owner,
    /// From `connect()` or the end of the handshake to now, ns; 0 when not known.
    pub age_ns: u64,
    /// `tcp_sock.bytes_acked`; 0 for a SYN-ACK.
    pub bytes_acked: u64,
    /// `tcp_sock.bytes_received`; 0 for a SYN-ACK.
    pub bytes_received: u64,
    /// Segments that `RetransSegs` rose by; more than one with GSO, 0 when it failed early.
    pub segments: u32,
    /// 0, or the negative errno or positive `NET_XMIT_*` of a failed attempt.
    pub err: i32,
    /// `tcp_sock.total_retrans`; for a SYN-ACK, how often it had been sent again before.
    pub total_retrans: u32,
    /// `tcp_sock.srtt_us` >> 3: smoothed round-trip time in microseconds; 0 when none.
    pub srtt_us: u32,
    /// `tcp_sock.snd_cwnd`, segments.
    pub snd_cwnd: u32,
    /// A [`crate::ledger::RetransmitType`].
    pub kind: u8,
    /// A [`crate::ledger::Role`].
    pub role: u8,
    /// `skc_state`.
    pub state: u8,
    /// `icsk_retransmits`: unrecovered retransmission timeouts so far.
    pub timeouts: u8,
}
