//! Packets dropped while a listener had them in hand.
//!
//! kernel: net/core/skbuff.c `sk_skb_reason_drop`, with the receiving socket from 6.11 on. SYNs
//! that a listener drops are not here (they leave by `consume_skb`): they are the rest of
//! `sk_drops` when these are taken away.
//! cost: once per dropped packet of any kind; one comparison when it has no receiving socket.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use netobs_common::{
    kernel::{TCP_CLOSE, TCP_LISTEN, TCP_TIME_WAIT},
    probe::{Loss, Program, Relieved},
};

use crate::{
    connections, drops,
    emit::{Handled, finish},
    kread::{Packet, Place, Skb, Sock, Typed, place},
    maps::{KFREE_SKB_BODY, LISTENERS, add_shared, setting},
    turns,
};

#[btf_tracepoint(function = "kfree_skb")]
fn kfree_skb(ctx: BtfTracePointContext) {
    if has_receiver(&ctx) {
        turns::take(Relieved::KfreeSkb, (ctx.arg(0), 0));
        finish(Program::KfreeSkb, try_kfree_skb(&ctx));
    }
}

/// Packets are freed in system calls too, which softirqs interrupt: see `turns`. A packet is freed
/// once.
#[btf_tracepoint(function = "kfree_skb")]
fn kfree_skb_again(ctx: BtfTracePointContext) {
    if has_receiver(&ctx) {
        turns::stand_in(&ctx, Relieved::KfreeSkb, (ctx.arg(0), 0), &KFREE_SKB_BODY);
    }
}

/// Whether the packet was for a socket.
#[inline(always)]
fn has_receiver(ctx: &BtfTracePointContext) -> bool {
    let rx_sk: *const u8 = ctx.arg(3);
    !rx_sk.is_null()
}

#[inline(always)]
fn try_kfree_skb(ctx: &BtfTracePointContext) -> Result<Handled, Loss> {
    let rx_sk: *const u8 = ctx.arg(3);
    if rx_sk.is_null() {
        return Ok(Handled::NotOurs);
    }
    // SAFETY: not null, and typed by the tracepoint. It may be a request or TIME_WAIT socket, which
    // begin with the same `struct sock_common`; nothing behind that is read before the state says
    // that it is a full socket.
    let sock: Sock<Typed> = unsafe { Sock::new(rx_sk) };
    let state = sock.state()?;
    let reason: u32 = ctx.arg(2);
    if state == TCP_TIME_WAIT {
        // Without that reason (NO_REASON) no packet has it.
        if reason != setting!(reason_tw_paws) {
            return Ok(Handled::NotOurs);
        }
        // SAFETY: the tracepoint's first argument, never null.
        return refused_in_time_wait(sock, unsafe { Skb::new(ctx.arg(0)) });
    }
    // A packet may still be with a listener that has just been closed.
    if state != TCP_LISTEN && state != TCP_CLOSE {
        return Ok(Handled::NotOurs);
    }
    if !sock.is_tcp()? {
        return Ok(Handled::NotOurs);
    }
    let Some(listener) = LISTENERS.get_ptr_mut(sock.address()) else {
        return if state == TCP_LISTEN {
            Err(Loss::UnknownListener)
        } else {
            Ok(Handled::NotOurs)
        };
    };
    let location: u64 = ctx.arg(1);
    // SAFETY: the tracepoint's first argument, never null.
    let skb = unsafe { Skb::new(ctx.arg(0)) };
    match place(location) {
        Place::Discard if reason != setting!(reason_tcp_csum) => {
            let weight = skb.drop_weight()?;
            // SAFETY: a live map element.
            unsafe { add_shared(&raw mut (*listener).discards, weight) };
        }
        Place::Cookie => {
            // SAFETY: a live map element.
            unsafe { add_shared(&raw mut (*listener).cookie_discards, 1) };
        }
        _ => {}
    }
    if reason == setting!(reason_listen_overflow) {
        // SAFETY: a live map element.
        unsafe { add_shared(&raw mut (*listener).ack_drops, 1) };
        let packet = Packet::at(ctx.arg(0));
        // SAFETY: a live map element.
        let owner = unsafe { (*listener).owner };
        drops::tell_ack(Program::KfreeSkb, sock, &owner, packet, reason)?;
    }
    Ok(Handled::Event)
}

/// A segment that a TIME_WAIT socket refused by its time stamp (PAWS). If it is a SYN, somebody waits
/// for an answer that does not come, while the listener on that port never sees the request.
#[inline(never)] // a stack of its own
fn refused_in_time_wait(sock: Sock<Typed>, skb: Skb) -> Result<Handled, Loss> {
    if !skb.asks_to_connect()? {
        return Ok(Handled::NotOurs);
    }
    let key = sock.listener_key(sock.net()?)?;
    connections::refused_in_time_wait(key).map(|()| Handled::Event)
}
