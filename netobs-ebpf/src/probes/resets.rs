//! Resets, sent and received.
//!
//! kernel: net/ipv4/tcp_ipv4.c `tcp_v4_send_reset`, tcp_ipv6.c `tcp_v6_send_reset` (a packet is
//! answered by RST), tcp_output.c `tcp_send_active_reset` (no packet: the process or a timer ends
//! the connection), tcp_input.c `tcp_reset`. Up to 6.9 resets without a socket have no event.
//! cost: once per RST.

use aya_ebpf::{bindings::BPF_NOEXIST, macros::btf_tracepoint, programs::BtfTracePointContext};
use netobs_common::{
    event::{Endpoints, NO_RESET_REASON, Reset},
    kernel::{TCP_CLOSE, TCP_LISTEN, TCP_NEW_SYN_RECV, TCP_SYN_SENT},
    ledger::{Direction, ResetClass, ResetKey, Role},
    owner::Owner,
    probe::{Loss, Program, Relieved},
};

use crate::{
    connections,
    emit::{Handled, emit, finish, now},
    kread::{Skb, Sock, TcpSock, Typed},
    maps::{RECEIVE_RESET_BODY, RESETS, SEND_RESET_BODY, add_shared, setting},
    owner::{self, Known},
    turns,
};

#[btf_tracepoint(function = "tcp_send_reset")]
fn tcp_send_reset(ctx: BtfTracePointContext) {
    turns::take(Relieved::SendReset, (ctx.arg(0), ctx.arg(1)));
    finish(Program::TcpSendReset, try_tcp_send_reset(&ctx));
}

/// Resets are sent in system calls too, which softirqs interrupt: see `turns`.
#[btf_tracepoint(function = "tcp_send_reset")]
fn send_reset_too(ctx: BtfTracePointContext) {
    let event = (ctx.arg(0), ctx.arg(1));
    turns::stand_in(&ctx, Relieved::SendReset, event, &SEND_RESET_BODY);
}

#[inline(always)]
fn try_tcp_send_reset(ctx: &BtfTracePointContext) -> Result<Handled, Loss> {
    let reason: u32 = if setting!(reset_reason) != 0 {
        ctx.arg(2)
    } else {
        NO_RESET_REASON
    };
    let (sk, skb): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(1));
    if sk.is_null() {
        if skb.is_null() {
            return Ok(Handled::NotOurs);
        }
        // SAFETY: not null, and typed by the tracepoint.
        return without_socket(unsafe { Skb::new(skb) }, reason).map(|()| Handled::Event);
    }
    // SAFETY: not null, and typed by the tracepoint; it may be a TIME_WAIT or request socket.
    let sock: Sock<Typed> = unsafe { Sock::new(sk) };
    let state = sock.state()?;
    let class = if skb.is_null() {
        ResetClass::Abort
    } else if state == TCP_LISTEN && is_overflow(skb, reason)? {
        ResetClass::Overflow
    } else if state == TCP_LISTEN || state == TCP_NEW_SYN_RECV {
        ResetClass::Handshake
    } else {
        ResetClass::Connection
    };
    let what = What {
        direction: Direction::Sent,
        class,
        reason,
    };
    match sock.tcp() {
        Some(tcp) => of_connection(Program::TcpSendReset, tcp, state, what),
        None => of_small_socket(sock, state, what),
    }
    .map(|()| Handled::Event)
}

/// Whether a listener's RST is that of `tcp_abort_on_overflow`. `tcp_check_req` gives the same reason
/// for a SYN that its request has no use for; that one has the flag.
#[inline(always)]
fn is_overflow(skb: *const u8, reason: u32) -> Result<bool, Loss> {
    let wanted = setting!(reset_invalid_syn);
    if wanted == 0 || reason != wanted as u32 {
        return Ok(false);
    }
    // SAFETY: not null, as the caller has seen, and typed by the tracepoint.
    let skb = unsafe { Skb::new(skb) };
    Ok(!skb.asks_to_connect()?)
}

#[btf_tracepoint(function = "tcp_receive_reset")]
fn tcp_receive_reset(ctx: BtfTracePointContext) {
    turns::take(Relieved::ReceiveReset, (ctx.arg(0), 0));
    finish(Program::TcpReceiveReset, try_tcp_receive_reset(&ctx));
}

/// A socket's packets may wait for a system call to end, which softirqs interrupt: see `turns`.
#[btf_tracepoint(function = "tcp_receive_reset")]
fn recv_reset_too(ctx: BtfTracePointContext) {
    let event = (ctx.arg(0), 0);
    turns::stand_in(&ctx, Relieved::ReceiveReset, event, &RECEIVE_RESET_BODY);
}

#[inline(always)]
fn try_tcp_receive_reset(ctx: &BtfTracePointContext) -> Result<Handled, Loss> {
    // SAFETY: the tracepoint's argument, never null.
    let sock: Sock<Typed> = unsafe { Sock::new(ctx.arg(0)) };
    let Some(tcp) = sock.tcp() else {
        return Ok(Handled::NotOurs);
    };
    let state = sock.state()?;
    let what = What {
        direction: Direction::Received,
        class: if state == TCP_SYN_SENT {
            ResetClass::Refused
        } else {
            ResetClass::Connection
        },
        reason: NO_RESET_REASON,
    };
    of_connection(Program::TcpReceiveReset, tcp, state, what).map(|()| Handled::Event)
}

#[derive(Clone, Copy)]
struct What {
    direction: Direction,
    class: ResetClass,
    reason: u32,
}

/// A RST of a full socket.
#[inline(never)] // a stack of its own
fn of_connection(program: Program, tcp: TcpSock, state: u8, what: What) -> Result<(), Loss> {
    let sock = tcp.sock();
    let local = tcp.local_port()?;
    let known = owner::of(sock, local)?;
    // close() changes the state before it sends the RST.
    let state = if state == TCP_CLOSE {
        connections::closed_from(sock).unwrap_or(state)
    } else {
        state
    };
    let counted = count(sock, local, state, &known, what);
    let now = now();
    let told = emit(program, known.owner.netns, now, |event: &mut Reset| {
        event.sk = sock.address();
        sock.ends(&mut event.ends)?;
        event.ends.local_port = local;
        event.owner = known.owner;
        event.age_ns = known.age(now);
        if known.begun_ns != 0 && state != TCP_SYN_SENT {
            event.idle_ns = tcp.idle_ns()?;
        }
        event.bytes_acked = tcp.bytes_acked()?;
        event.bytes_received = tcp.bytes_received()?;
        event.reason = what.reason;
        event.class = what.class as u8;
        event.direction = what.direction as u8;
        event.role = known.role as u8;
        event.state = state;
        Ok(())
    });
    counted.and(told)
}

/// A RST that answers a packet for a TIME_WAIT or request socket, of which only what all sockets
/// have is read.
#[inline(never)] // a stack of its own
fn of_small_socket(sock: Sock<Typed>, state: u8, what: What) -> Result<(), Loss> {
    let local = sock.local_port()?;
    let mut known = Known {
        owner: Owner::default(),
        role: if state == TCP_NEW_SYN_RECV {
            Role::Server
        } else {
            Role::Client
        },
        begun_ns: 0,
    };
    owner::find_small(sock, local, &mut known)?;
    count(sock, local, state, &known, what)?;
    emit(
        Program::TcpSendReset,
        known.owner.netns,
        now(),
        |event: &mut Reset| {
            event.sk = sock.address();
            sock.ends(&mut event.ends)?;
            event.owner = known.owner;
            event.reason = what.reason;
            event.class = what.class as u8;
            event.direction = what.direction as u8;
            event.role = known.role as u8;
            event.state = state;
            Ok(())
        },
    )
}

/// A RST that answers a packet for which there is no socket at all.
#[inline(never)] // a stack of its own
fn without_socket(skb: Skb, reason: u32) -> Result<(), Loss> {
    let net = skb.net()?;
    let netns = net.number;
    let class = if skb.asks_to_connect()? {
        ResetClass::Refused
    } else {
        ResetClass::NoSocket
    };
    let mut ends = Endpoints::default();
    skb.ends(&mut ends)?;
    let key = ResetKey {
        owner: Owner {
            net: net.identity,
            netns,
            ..Owner::default()
        }
        .key(),
        reason,
        port: 0, // whoever scans ports would fill the map; the event has it
        role: Role::Server as u8,
        direction: Direction::Sent as u8,
        state: 0,
        class: class as u8,
        reserved: [0; 6],
    };
    add(key)?;
    emit(Program::TcpSendReset, netns, now(), |event: &mut Reset| {
        event.ends = ends;
        event.owner.netns = netns;
        event.reason = reason;
        event.class = class as u8;
        event.direction = Direction::Sent as u8;
        event.role = Role::Server as u8;
        Ok(())
    })
}

#[inline(always)]
fn count(sock: Sock<Typed>, local: u16, state: u8, known: &Known, what: What) -> Result<(), Loss> {
    add(ResetKey {
        owner: known.owner.key(),
        reason: what.reason,
        port: match known.role {
            Role::Server => local,
            Role::Client => fold(sock.remote_port()?),
        },
        role: known.role as u8,
        direction: what.direction as u8,
        state,
        class: what.class as u8,
        reserved: [0; 6],
    })
}

/// Ephemeral ports are one.
#[inline(always)]
fn fold(port: u16) -> u16 {
    if u32::from(port) >= setting!(ephemeral_low) {
        0
    } else {
        port
    }
}

#[inline(always)]
fn add(key: ResetKey) -> Result<(), Loss> {
    // A failure to insert is another CPU's success, or a full map: the second look-up tells.
    for _ in 0..2 {
        if let Some(count) = RESETS.get_ptr_mut(key) {
            // SAFETY: a live element of a per-CPU map.
            unsafe { add_shared(count, 1) };
            return Ok(());
        }
        let _ = RESETS.insert(key, 0, BPF_NOEXIST.into());
    }
    Err(Loss::MapFull)
}
