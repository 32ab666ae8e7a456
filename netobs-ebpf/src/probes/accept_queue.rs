//! Connections that enter and leave accept queues.
//!
//! kernel: net/ipv4/inet_connection_sock.c
//! `inet_csk_reqsk_queue_add(sk, req, child)`, NULL when the socket no longer listens, and
//! `inet_csk_accept(sk, ...)`, NULL when there was nothing to accept.
//! cost: once per accepted connection each.

use aya_ebpf::{macros::fexit, programs::FExitContext};
use netobs_common::probe::{Loss, Program};

use super::listeners;
use crate::{
    connections,
    emit::{Handled, finish},
    kread::{Probed, Sock, Typed},
    maps::{LISTENERS, add_shared},
};

#[fexit(function = "inet_csk_reqsk_queue_add")]
fn accept_enqueue(ctx: FExitContext) {
    finish(Program::AcceptEnqueue, try_accept_enqueue(&ctx));
}

#[inline(always)]
fn try_accept_enqueue(ctx: &FExitContext) -> Result<Handled, Loss> {
    let added: u64 = ctx.arg(3);
    if added == 0 {
        return Ok(Handled::NotOurs);
    }
    // SAFETY: the function's first argument, never null.
    let sock: Sock<Typed> = unsafe { Sock::new(ctx.arg(0)) };
    let Some(listener) = LISTENERS.get_ptr_mut(sock.address()) else {
        return Err(Loss::UnknownListener);
    };
    let (length, limit) = (sock.ack_backlog()?, sock.max_ack_backlog()?);
    // SAFETY: a live map element.
    unsafe {
        add_shared(&raw mut (*listener).enqueued, 1);
        listeners::entered(listener, length, limit);
    }
    Ok(Handled::Event)
}

/// `inet_csk_accept(sk, arg)`, from 6.10 on.
#[fexit(function = "inet_csk_accept")]
fn accept_dequeue(ctx: FExitContext) {
    // SAFETY: the function's first argument, never null; its result follows two arguments.
    let outcome = unsafe { try_accept_dequeue(ctx.arg(0), ctx.arg(2)) };
    finish(Program::AcceptDequeue, outcome);
}

/// `inet_csk_accept(sk, flags, err, kern)`, up to 6.9.
#[fexit(function = "inet_csk_accept")]
fn accept_dequeue_4(ctx: FExitContext) {
    // SAFETY: the function's first argument, never null; its result follows four arguments.
    let outcome = unsafe { try_accept_dequeue(ctx.arg(0), ctx.arg(4)) };
    finish(Program::AcceptDequeue, outcome);
}

/// # Safety
///
/// `sk` must be a typed pointer that the verifier tracks.
#[inline(always)]
unsafe fn try_accept_dequeue(sk: *const u8, accepted: u64) -> Result<Handled, Loss> {
    if accepted == 0 {
        return Ok(Handled::NotOurs);
    }
    // SAFETY: the caller's contract.
    let sock: Sock<Typed> = unsafe { Sock::new(sk) };
    let Some(listener) = LISTENERS.get_ptr_mut(sock.address()) else {
        return Err(Loss::UnknownListener);
    };
    // SAFETY: a live map element.
    unsafe { add_shared(&raw mut (*listener).accepted, 1) };
    // SAFETY: read by probe.
    let connection: Sock<Probed> = unsafe { Sock::new(accepted as *const u8) };
    connections::accept(Program::AcceptDequeue, connection)
}
