//! Events of connections that a listener dropped.

use netobs_common::{
    event::{DROP_SEEN, ListenDrop},
    kernel::NO_REASON,
    ledger::{Listener, Reason, Stage},
    probe::{Loss, Program},
};

use crate::{
    emit::{emit, header},
    kread::{Access, Packet, Sock},
};

/// Where thousands of SYNs are dropped in a second, one event of a listener in this time is enough
/// to tell who sends them; how many there were is counted.
const INTERVAL_NS: u64 = 1_000_000;

/// Tells of `drops`, unless another event has told of this listener a moment ago.
///
/// # Safety
///
/// `listener` must be a live element of the map of listeners.
#[inline(always)]
pub(crate) unsafe fn tell_sometimes<A: Access>(
    program: Program,
    listener: *mut Listener,
    sock: Sock<A>,
    packet: Packet,
    (stage, cause): (Stage, Reason),
    drops: u64,
) -> Result<(), Loss> {
    let head = header::<ListenDrop>(sock.netns()?);
    // SAFETY: the caller's contract. Of two CPUs that get here at once, both may tell.
    unsafe {
        if head.ktime_ns.wrapping_sub((*listener).event_ns) < INTERVAL_NS {
            return Ok(());
        }
        (*listener).event_ns = head.ktime_ns;
    }
    emit(
        program,
        ListenDrop {
            header: head,
            sk: sock.address(),
            ends: ends(sock, packet)?,
            ack_backlog: sock.ack_backlog()?,
            max_ack_backlog: sock.max_ack_backlog()?,
            drops: drops as u32,
            reason: NO_REASON,
            stage: stage as u8,
            cause: cause as u8,
            method: DROP_SEEN,
            reserved: [0; 5],
        },
    );
    Ok(())
}

/// Tells of one dropped final ACK.
#[inline(always)]
pub(crate) fn tell_ack<A: Access>(
    program: Program,
    sock: Sock<A>,
    packet: Packet,
    reason: u32,
) -> Result<(), Loss> {
    emit(
        program,
        ListenDrop {
            header: header::<ListenDrop>(sock.netns()?),
            sk: sock.address(),
            ends: ends(sock, packet)?,
            ack_backlog: sock.ack_backlog()?,
            max_ack_backlog: sock.max_ack_backlog()?,
            drops: 1,
            reason,
            stage: Stage::Ack as u8,
            cause: Reason::AcceptQueueFull as u8,
            method: DROP_SEEN,
            reserved: [0; 5],
        },
    );
    Ok(())
}

/// Both ends of the packet; without one, what the listener knows.
#[inline(always)]
fn ends<A: Access>(sock: Sock<A>, packet: Packet) -> Result<netobs_common::event::Endpoints, Loss> {
    match packet.address() {
        0 => sock.ends(),
        _ => packet.ends(),
    }
}
