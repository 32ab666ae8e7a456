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
    connections,
    emit::{Handled, emit, finish, now},
    kread::{Sock, Typed},
    maps::{CLOSED_LISTENERS, LISTENERS, READING},
    owner, retransmits,
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
        connections::forget(sock);
        settled?;
    }
    // A listener has no peer: a socket that has been connected must be disconnected before it can
    // listen (net/ipv4/af_inet.c `inet_listen`).
    if sock.remote_port()? != 0 || LISTENERS.get_ptr(sock.address()).is_none() {
        return Ok(Handled::NotOurs);
    }
    close_listener(sock).map(|()| Handled::Event)
}

/// Hands over a listener's final reading, and forgets it.
#[inline(never)] // a stack of its own
fn close_listener(sock: Sock<Typed>) -> Result<(), Loss> {
    let Some(listener) = LISTENERS.get_ptr(sock.address()) else {
        return Ok(());
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
    owner::listens_no_more(listeners::key(listener));
    let told = emit(
        Program::TcpDestroySock,
        listener.owner.netns,
        now(),
        |event: &mut ListenerChange| {
            event.sk = sock.address();
            event.owner = listener.owner;
            event.local_address = listener.local_address;
            event.local_port = listener.local_port;
            event.family = listener.family;
            event.change = LISTENER_CLOSED;
            Ok(())
        },
    );
    kept.and(told)
}
