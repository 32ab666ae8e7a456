//! Events of connections that a listener dropped.

use netobs_common::{
    event::{DROP_SEEN, EventKind, ListenDrop},
    kernel::NO_REASON,
    ledger::{Reason, Stage},
    owner::Owner,
    probe::{Loss, Program},
};

use crate::{
    emit::{emit, is_wanted, now},
    kread::{Access, Packet, Sock},
};

/// Where thousands of SYNs are dropped in a second, the first ones of each 100 ms are enough to tell
/// who sends them; how many there were is counted.
const MOST_IN_BIN: u64 = 16;

/// What was dropped, and why.
#[derive(Clone, Copy)]
pub(crate) struct Dropped {
    pub(crate) packet: Packet,
    pub(crate) stage: Stage,
    pub(crate) cause: Reason,
    pub(crate) drops: u64,
}

/// Tells of a drop, unless so many events have told of this listener in the bin of now (`before`)
/// and nobody wants every one.
#[inline(always)]
pub(crate) fn tell_sometimes<A: Access>(
    program: Program,
    sock: Sock<A>,
    owner: &Owner,
    dropped: Dropped,
    before: u64,
) -> Result<(), Loss> {
    if before >= MOST_IN_BIN && !is_wanted(EventKind::ListenDrop) {
        return Ok(());
    }
    tell(program, sock, owner, dropped, NO_REASON)
}

/// Tells of one dropped final ACK.
#[inline(always)]
pub(crate) fn tell_ack<A: Access>(
    program: Program,
    sock: Sock<A>,
    owner: &Owner,
    packet: Packet,
    reason: u32,
) -> Result<(), Loss> {
    let dropped = Dropped {
        packet,
        stage: Stage::Ack,
        cause: Reason::AcceptQueueFull,
        drops: 1,
    };
    tell(program, sock, owner, dropped, reason)
}

#[inline(always)]
fn tell<A: Access>(
    program: Program,
    sock: Sock<A>,
    owner: &Owner,
    dropped: Dropped,
    reason: u32,
) -> Result<(), Loss> {
    emit(program, owner.netns, now(), |event: &mut ListenDrop| {
        event.sk = sock.address();
        event.owner = *owner;
        // Without a packet in hand, what the listener knows.
        match dropped.packet.address() {
            0 => sock.ends(&mut event.ends)?,
            _ => dropped.packet.ends(&mut event.ends)?,
        }
        event.ack_backlog = sock.ack_backlog()?;
        event.max_ack_backlog = sock.max_ack_backlog()?;
        event.drops = dropped.drops as u32;
        event.reason = reason;
        event.stage = dropped.stage as u8;
        event.cause = dropped.cause as u8;
        event.method = DROP_SEEN;
        Ok(())
    })
}
