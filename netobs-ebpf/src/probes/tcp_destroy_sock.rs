//! The end of a socket: a listener's final reading, and segments not yet attributed.
//!
//! kernel: net/ipv4/tcp_ipv4.c `tcp_v4_destroy_sock`: once for every full TCP socket, in every
//! kernel, while the socket is still whole.
//! cost: once per connection; a lookup and two loads for sockets that neither listened nor
//! retransmitted.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use netobs_common::{
    event::{LISTENER_CLOSED, ListenerChange},
    probe::{Loss, Program},
};

use super::listeners;
use crate::{
    emit::{Handled, emit, finish, header},
    kread::{Sock, Typed},
    maps::{CLOSED_LISTENERS, LISTENERS, READING},
    retransmits,
};

#[btf_tracepoint(function = "tcp_destroy_sock")]
fn tcp_destroy_sock(ctx: BtfTracePointContext) {
    finish(Program::TcpDestroySock, try_tcp_destroy_sock(&ctx));
}

#[inline(always)]
fn try_tcp_destroy_sock(ctx: &BtfTracePointContext) -> Result<Handled, Loss> {
    // SAFETY: the tracepoint's argument, never null.
    let sock: Sock<Typed> = unsafe { Sock::new(ctx.arg(0)) };
    if let Some(tcp) = sock.tcp() {
        let settled = retransmits::settle(tcp, false);
        retransmits::forget(sock);
        settled?;
    }
    let Some(listener) = LISTENERS.get_ptr(sock.address()) else {
        return Ok(Handled::NotOurs);
    };
    let Some(reading) = READING.get_ptr_mut(0) else {
        return Err(Loss::MapFull);
    };
    // SAFETY: a live map element, copied before it is removed; the scratch element belongs to this
    // CPU, and the tracepoint fires with softirqs off or in one.
    let (reading, listener) = unsafe {
        (*reading).listener = *listener;
        (&mut *reading, &(*reading).listener)
    };
    reading.socket = listeners::read(sock)?;
    let kept = CLOSED_LISTENERS
        .push(&*reading, 0)
        .map_err(|_| Loss::MapFull);
    // Removed whether or not the reading could be kept: the socket's memory is about to be reused.
    let _ = LISTENERS.remove(sock.address());
    emit(
        Program::TcpDestroySock,
        ListenerChange {
            header: header::<ListenerChange>(listener.netns),
            sk: sock.address(),
            change: LISTENER_CLOSED,
            pid: 0,
            local_address: listener.local_address,
            local_port: listener.local_port,
            family: listener.family,
            reserved: 0,
            comm: [0; 16],
        },
    );
    kept.map(|()| Handled::Event)
}
