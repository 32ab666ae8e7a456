//! Sockets that are older than the agent, of the network namespace of the task that opens the
//! iterator.
//!
//! kernel: net/ipv4/tcp_ipv4.c `bpf_iter_tcp`.
//! cost: once per socket, at start and when a namespace turns up.

use netobs_common::{
    event::Endpoints,
    ledger::ASKED_UNKNOWN,
    owner::Owner,
    probe::{Loss, Program},
};

use super::listeners;
use crate::{
    emit::{Handled, finish},
    kread::{Sock, Typed, is_listen},
    owner, retransmits,
};

/// `struct bpf_iter__tcp`.
#[repr(C)]
struct IterTcp {
    meta: *const u8,
    sk_common: *const u8,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
fn existing_sockets(ctx: *mut core::ffi::c_void) -> i32 {
    finish(Program::ExistingSockets, try_existing_sockets(ctx.cast()));
    0
}

#[inline(always)]
fn try_existing_sockets(ctx: *const IterTcp) -> Result<Handled, Loss> {
    // SAFETY: the context of an `iter/tcp` program.
    let sk_common = unsafe { (*ctx).sk_common };
    if sk_common.is_null() {
        return Ok(Handled::NotOurs); // the end
    }
    // SAFETY: not null, and a socket; `tcp` refuses what is not a full TCP socket.
    let any: Sock<Typed> = unsafe { Sock::new(sk_common) };
    let Some(tcp) = any.tcp() else {
        return Ok(Handled::NotOurs);
    };
    retransmits::baseline(tcp)?;
    if is_listen(tcp.sock().state()?) {
        let mut ends = Endpoints::default();
        tcp.sock().ends(&mut ends)?;
        let net = tcp.sock().net()?;
        let owner = Owner {
            cgroup: tcp.sock().cgroup()?,
            net: net.identity,
            netns: net.number,
            ..Owner::default()
        };
        listeners::open(tcp.sock(), owner, ASKED_UNKNOWN, &ends)?;
    } else {
        // Listeners come first, so their connections are told from the others.
        let known = owner::of(tcp.sock(), tcp.local_port()?)?;
        owner::remember_older(tcp.sock(), known.owner, known.role)?;
    }
    Ok(Handled::Event)
}
