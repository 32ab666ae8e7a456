//! Tier 1 of listen drops: what the kernel's own counters rise by while it handles one packet.
//!
//! ListenDrops and ListenOverflows are raised in a few functions that run with softirqs off on one
//! CPU. This CPU's slots, read at entry and exit of the outermost of them, tell exactly what this
//! packet did to the listener in hand. Outermost, because they nest (IPv4 in IPv6, TCP in MPTCP),
//! and each increment must be seen once.
//!
//! cost: per SYN and per final ACK; nothing per data packet.

use netobs_common::{
    burst::BurstSignal,
    ledger::{Reason, Stage},
    probe::{Loss, Program},
};

use crate::{
    bursts,
    drops::{self, Dropped},
    emit::{Handled, now},
    kread::{Access, Mib, Packet, Probed, Sock},
    maps::{FRAMES, LISTENERS, add_shared, setting},
};

/// Whether `inner` is called by `outer` for the same packet.
#[inline(always)]
fn nests(outer: u32, inner: Program) -> bool {
    let v6 =
        outer == Program::TcpV6ConnRequest as u32 || outer == Program::SubflowV6ConnRequest as u32;
    v6 && matches!(
        inner,
        Program::TcpV4ConnRequest | Program::SubflowV4ConnRequest
    )
}

/// Whether a function sends or checks SYN cookies.
#[inline(always)]
fn handles_cookies(function: Program) -> bool {
    setting!(mib_cookies) != 0 && !matches!(function, Program::TcpCheckReq | Program::TcpReqErr)
}

/// At a function's entry, with its listener and the packet in hand.
#[inline(always)]
pub(crate) fn enter<A: Access>(
    function: Program,
    listener: Sock<A>,
    packet: Packet,
) -> Result<Handled, Loss> {
    let Some(frame) = FRAMES.get_ptr_mut(0) else {
        return Err(Loss::MapFull);
    };
    // SAFETY: a live element that belongs to this CPU while softirqs are off.
    let frame = unsafe { &mut *frame };
    if frame.depth > 0 && nests(frame.function, function) {
        frame.depth += 1;
        return Ok(Handled::NotOurs);
    }
    // A frame that is still there belongs to a call whose exit was not seen: it is overwritten, and
    // what that call counted stays unattributed.
    let stale = frame.depth > 0;
    let mib = Mib::of(listener)?;
    frame.sk = listener.address();
    frame.skb = packet.address();
    frame.mib = mib.address();
    frame.listen = mib.listen()?;
    frame.syn_queue_full = mib.syn_queue_full()?;
    if handles_cookies(function) {
        frame.cookies = mib.cookies()?;
    }
    frame.function = function as u32;
    frame.depth = 1;
    if stale {
        return Err(Loss::MissedExit);
    }
    Ok(Handled::NotOurs)
}

/// At a function's exit.
#[inline(always)]
pub(crate) fn exit(function: Program, stage: Stage) -> Result<Handled, Loss> {
    let Some(frame) = FRAMES.get_ptr_mut(0) else {
        return Err(Loss::MapFull);
    };
    // SAFETY: as in `enter`.
    let frame = unsafe { &mut *frame };
    if frame.depth == 0 {
        // The exit of a call that had begun when this was attached, or that the entry passed over.
        return Ok(Handled::NotOurs);
    }
    if frame.depth > 1 {
        frame.depth -= 1;
        return Ok(Handled::NotOurs);
    }
    if frame.function != function as u32 {
        return Ok(Handled::NotOurs);
    }
    frame.depth = 0;
    let mib = Mib::at(frame.mib);
    let [overflows, drops] = mib.listen()?;
    let overflows = overflows.wrapping_sub(frame.listen[0]);
    let drops = drops.wrapping_sub(frame.listen[1]);
    let mut cookies = [0; 3];
    if handles_cookies(function) {
        let now = mib.cookies()?;
        cookies = [0, 1, 2].map(|outcome: usize| now[outcome].wrapping_sub(frame.cookies[outcome]));
    }
    if overflows == 0 && drops == 0 && cookies == [0; 3] {
        return Ok(Handled::NotOurs);
    }
    let Some(listener) = LISTENERS.get_ptr_mut(frame.sk) else {
        return Err(Loss::UnknownListener);
    };
    // SAFETY: a live map element.
    unsafe {
        let counts = &raw mut (*listener).cookies;
        add_shared(&raw mut (*counts)[0], cookies[0]);
        add_shared(&raw mut (*counts)[1], cookies[1]);
        add_shared(&raw mut (*counts)[2], cookies[2]);
    }
    if overflows == 0 && drops == 0 {
        return Ok(Handled::Event);
    }
    let reason = if overflows > 0 {
        Reason::AcceptQueueFull
    } else if mib.syn_queue_full()? != frame.syn_queue_full {
        Reason::SynQueueFull
    } else {
        Reason::Other
    };
    // SAFETY: a live map element.
    unsafe {
        let counts = &raw mut (*listener).counts;
        if overflows > 0 {
            add_shared(&raw mut (*counts).overflows[stage as usize], overflows);
        }
        if drops > 0 {
            let by_reason = &raw mut (*counts).drops[stage as usize];
            match reason {
                Reason::AcceptQueueFull => add_shared(&raw mut (*by_reason)[0], drops),
                Reason::SynQueueFull => add_shared(&raw mut (*by_reason)[1], drops),
                Reason::Other => add_shared(&raw mut (*by_reason)[2], drops),
            }
        }
    }
    let binned = bursts::add(BurstSignal::ListenDrop, frame.sk, drops, now());
    let dropped = Dropped {
        packet: Packet::at(frame.skb),
        stage,
        cause: reason,
        drops,
    };
    // SAFETY: `Probed` takes any address; the listener is a live map element.
    let (sock, owner) = unsafe {
        (
            Sock::<Probed>::new(frame.sk as *const u8),
            &(*listener).owner,
        )
    };
    // A bin that could not be made is no reason to be silent.
    let before = *binned.as_ref().unwrap_or(&0);
    let told = drops::tell_sometimes(function, sock, owner, dropped, before);
    binned.and(told).map(|()| Handled::Event)
}
