//! SYNs that a TIME_WAIT socket of an earlier connection does not let through to the listener.
//!
//! kernel: net/ipv4/tcp_minisocks.c `tcp_timewait_state_process(tw, skb, th, ...)`, which has grown
//! an argument twice; it returns `TCP_TW_SYN` for a SYN that the listener is to have.
//! cost: once per packet for a TIME_WAIT socket.

use aya_ebpf::{macros::fexit, programs::FExitContext};
use netobs_common::probe::{Loss, Program};

use crate::{
    connections,
    emit::{Handled, finish},
    kread::{Probed, Skb, Sock},
};

/// `TCP_TW_SYN` of `enum tcp_tw_status` (include/net/tcp.h), the same in every kernel.
const TO_LISTENER: u32 = 3;

/// Up to 6.9.
#[fexit(function = "tcp_timewait_state_process")]
fn time_wait_3(ctx: FExitContext) {
    finish(Program::TimeWait, refused(&ctx, ctx.arg(3)));
}

/// With `isn`.
#[fexit(function = "tcp_timewait_state_process")]
fn time_wait_4(ctx: FExitContext) {
    finish(Program::TimeWait, refused(&ctx, ctx.arg(4)));
}

/// With `isn` and `drop_reason`.
#[fexit(function = "tcp_timewait_state_process")]
fn time_wait_5(ctx: FExitContext) {
    finish(Program::TimeWait, refused(&ctx, ctx.arg(5)));
}

#[inline(always)]
fn refused(ctx: &FExitContext, verdict: u32) -> Result<Handled, Loss> {
    if verdict == TO_LISTENER {
        return Ok(Handled::NotOurs);
    }
    // SAFETY: the function's second argument, never null.
    let skb = unsafe { Skb::new(ctx.arg(1)) };
    if !skb.asks_to_connect()? {
        return Ok(Handled::NotOurs);
    }
    // SAFETY: read by probe; a TIME_WAIT socket begins with the same `struct sock_common`, and
    // nothing behind that is read.
    let sock: Sock<Probed> = unsafe { Sock::new(ctx.arg(0)) };
    let key = sock.listener_key(sock.net()?)?;
    connections::refused_in_time_wait(key).map(|()| Handled::Event)
}
