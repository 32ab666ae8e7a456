//! Listeners that come, and sockets whose use ends.
//!
//! kernel: net/ipv4/af_inet.c `inet_sk_state_store` and friends; every TCP state change.
//! cost: a few times per connection; two loads and a comparison for changes of no interest.

use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use netobs_common::{
    event::{LISTENER_OPENED, ListenerChange},
    kernel::{TCP_CLOSE, TCP_LISTEN, TCP_SYN_SENT},
    probe::{Loss, Program},
};

use super::listeners::{self, Opener};
use crate::{
    emit::{Handled, emit, finish, header},
    kread::{Sock, Typed},
    retransmits,
};

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) {
    finish(Program::InetSockSetState, try_inet_sock_set_state(&ctx));
}

#[inline(always)]
fn try_inet_sock_set_state(ctx: &BtfTracePointContext) -> Result<Handled, Loss> {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    // The end of an outgoing handshake: what was sent again until then were SYNs.
    let syn = old == i32::from(TCP_SYN_SENT);
    if !syn && new != i32::from(TCP_LISTEN) && new != i32::from(TCP_CLOSE) {
        return Ok(Handled::NotOurs);
    }
    // SAFETY: the tracepoint's first argument, never null.
    let sock: Sock<Typed> = unsafe { Sock::new(ctx.arg(0)) };
    if !sock.is_tcp()? {
        return Ok(Handled::NotOurs);
    }
    if new != i32::from(TCP_LISTEN) {
        // Before tcp_disconnect() may set total_retrans to zero.
        if let Some(tcp) = sock.tcp() {
            retransmits::settle(tcp, syn)?;
        }
        return Ok(Handled::NotOurs);
    }

    // listen() runs in the caller's context: here, and only here, `current` is the owner.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the upper half is the process id"
    )]
    let opener = Opener {
        pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        comm: bpf_get_current_comm().map_err(|_| Loss::Unreadable)?,
    };
    let ends = sock.ends()?;
    let netns = listeners::open(sock, opener, &ends)?;
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(ctx, "listen on port {} by {}", ends.local_port, opener.pid);
    emit(
        Program::InetSockSetState,
        ListenerChange {
            header: header::<ListenerChange>(netns),
            sk: sock.address(),
            change: LISTENER_OPENED,
            pid: opener.pid,
            local_address: ends.local_address,
            local_port: ends.local_port,
            family: ends.family,
            reserved: 0,
            comm: opener.comm,
        },
    );
    Ok(Handled::Event)
}
