//! Outgoing handshakes, connections that enter an accept queue, listeners that come, and sockets
//! whose use ends.
//!
//! kernel: net/ipv4/af_inet.c `inet_sk_state_store` and friends; every TCP state change.
//! cost: ten times per connection that both ends of are here; two loads and a comparison for the half
//! of them that are of no interest. Twice: a softirq's events would be skipped while a system call's is
//! handled, see `turns`.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use netobs_common::{
    event::{Endpoints, LISTENER_OPENED, ListenerChange},
    kernel::{TCP_CLOSE, TCP_ESTABLISHED, TCP_LAST_ACK, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT},
    probe::{Loss, Program, Relieved},
};

use super::listeners;
use crate::{
    connections,
    emit::{Handled, emit, finish, now},
    kread::{Sock, Typed},
    maps::SET_STATE_BODY,
    owner,
    registers::listen_argument,
    retransmits, turns,
};

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) {
    if is_of_interest(&ctx) {
        turns::take(Relieved::SetState, event(&ctx));
        finish(Program::InetSockSetState, try_inet_sock_set_state(&ctx));
    }
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn set_state_again(ctx: BtfTracePointContext) {
    if is_of_interest(&ctx) {
        turns::stand_in(&ctx, Relieved::SetState, event(&ctx), &SET_STATE_BODY);
    }
}

/// Whether a change is one of the few that netobs looks at: the others are half of all.
#[inline(always)]
fn is_of_interest(ctx: &BtfTracePointContext) -> bool {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let (was, is) = (state(old), state(new));
    was == TCP_SYN_SENT
        || (was == TCP_SYN_RECV && is == TCP_ESTABLISHED)
        || matches!(is, TCP_SYN_SENT | TCP_LISTEN | TCP_CLOSE)
}

/// What tells a change from others under way on this CPU: the socket, which is locked meanwhile, and
/// both states, which are below 16.
#[inline(always)]
fn event(ctx: &BtfTracePointContext) -> turns::Event {
    let (old, new): (u64, u64) = (ctx.arg(1), ctx.arg(2));
    (ctx.arg(0), old << 4 | new)
}

#[inline(always)]
fn try_inet_sock_set_state(ctx: &BtfTracePointContext) -> Result<Handled, Loss> {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let (was, is) = (state(old), state(new));
    // SAFETY: the tracepoint's first argument, never null.
    let sock: Sock<Typed> = unsafe { Sock::new(ctx.arg(0)) };
    if !sock.is_tcp()? {
        return Ok(Handled::NotOurs);
    }
    if is == TCP_SYN_SENT {
        return connections::begin(sock).map(|()| Handled::Event);
    }
    if was == TCP_SYN_RECV && is == TCP_ESTABLISHED {
        // A connection begins with the number of its SYN-ACKs that were sent again
        // (tcp_create_openreq_child, net/ipv4/tcp_minisocks.c), which are counted as what they are.
        if let Some(tcp) = sock.tcp() {
            retransmits::baseline(tcp)?;
        }
        return connections::enqueue(sock).map(|()| Handled::Event);
    }
    if is != TCP_LISTEN {
        let Some(tcp) = sock.tcp() else {
            return Ok(Handled::NotOurs);
        };
        let mut ended = Ok(());
        if was == TCP_SYN_SENT {
            ended = connections::end(tcp, is != TCP_CLOSE);
        } else if was != TCP_LAST_ACK {
            // The peer has closed, and knows that this end has: no RST of this socket follows.
            connections::close(sock, was);
        }
        // Before tcp_disconnect() may set total_retrans to zero. What was sent again until the end
        // of an outgoing handshake were SYNs.
        retransmits::settle(tcp, was == TCP_SYN_SENT)?;
        return ended.map(|()| Handled::NotOurs);
    }
    listen(sock).map(|()| Handled::Event)
}

/// `listen()`, in the caller's context: there, as in `connect()`, `current` is the owner.
#[inline(never)] // a stack of its own
fn listen(sock: Sock<Typed>) -> Result<(), Loss> {
    let owner = owner::current(sock.net()?)?;
    let mut ends = Endpoints::default();
    sock.ends(&mut ends)?;
    listeners::open(sock, owner, listen_argument(), &ends)?;
    emit(
        Program::InetSockSetState,
        owner.netns,
        now(),
        |event: &mut ListenerChange| {
            event.sk = sock.address();
            event.owner = owner;
            event.local_address = ends.local_address;
            event.local_port = ends.local_port;
            event.family = ends.family;
            event.change = LISTENER_OPENED;
            Ok(())
        },
    )
}

/// A state as the socket has it; there are not 256 of them.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "1 to 13"
)]
#[inline(always)]
fn state(number: i32) -> u8 {
    number as u8
}
