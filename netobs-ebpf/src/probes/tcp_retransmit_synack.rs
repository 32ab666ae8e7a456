//! SYN-ACKs sent again.
//!
//! kernel: net/ipv4/tcp_output.c `tcp_rtx_synack`: exactly one event per SYN-ACK that was sent
//! again, in every kernel; the first SYN-ACK has none.
//! cost: once per retransmitted SYN-ACK.

use aya_ebpf::{
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use netobs_common::{
    event::Retransmit,
    ledger::{RetransmitCounts, RetransmitKey, RetransmitType, Role},
    probe::{Loss, Program},
};

use super::tcp_retransmit_skb::field;
use crate::{
    emit::{Handled, emit, finish, now},
    kread::{Request, Sock, is_listen},
    maps::setting,
    retransmits,
};

#[btf_tracepoint(function = "tcp_retransmit_synack")]
fn tcp_retransmit_synack(ctx: BtfTracePointContext) {
    finish(
        Program::TcpRetransmitSynack,
        try_tcp_retransmit_synack(&ctx),
    );
}

#[inline(always)]
fn try_tcp_retransmit_synack(ctx: &BtfTracePointContext) -> Result<Handled, Loss> {
    // SAFETY: the tracepoint's arguments, never null.
    let (sock, request) = unsafe { (Sock::new(ctx.arg(0)), Request::new(ctx.arg(1))) };
    let state = sock.state()?;
    if !is_listen(state) {
        // A Fast Open child: the kernel has raised its total_retrans as well. Accounting for it
        // here keeps `settle` from counting the segment a second time.
        if let Some(tcp) = sock.tcp() {
            retransmits::account(tcp, 1, false)?;
        }
    }
    let now = now();
    let (key, known) = retransmits::key(sock, sock.local_port()?, RetransmitType::SynAck)?;
    let counted = retransmits::add(
        key,
        RetransmitCounts {
            segments: 1,
            failures: 0,
            syn_segments: 1,
        },
        now,
    );

    emit(
        Program::TcpRetransmitSynack,
        known.owner.netns,
        now,
        |event: &mut Retransmit| {
            event.sk = sock.address();
            sock.ends(&mut event.ends)?;
            request.remote(&mut event.ends)?;
            event.owner = known.owner;
            event.segments = 1;
            event.total_retrans = request.num_retrans()?.into();
            event.kind = RetransmitType::SynAck as u8;
            event.role = known.role as u8;
            event.state = state;
            Ok(())
        },
    )?;
    counted.map(|()| Handled::Event)
}

/// The same from the formatted record, for kernels without BTF: the namespace is not known.
#[tracepoint]
fn tcp_retransmit_synack_classic(ctx: TracePointContext) -> u32 {
    let program = Program::TcpRetransmitSynackClassic;
    finish(program, try_tcp_retransmit_synack_classic(&ctx));
    // 0 would hide the event from every perf user of the tracepoint.
    1
}

#[inline(always)]
fn try_tcp_retransmit_synack_classic(ctx: &TracePointContext) -> Result<Handled, Loss> {
    let port: u16 = field(ctx, setting!(classic.synack_sport))?;
    let (role, kind) = (Role::Server as u8, RetransmitType::SynAck as u8);
    retransmits::add(
        RetransmitKey {
            port,
            role,
            kind,
            ..RetransmitKey::default()
        },
        RetransmitCounts {
            segments: 1,
            failures: 0,
            syn_segments: 1,
        },
        now(),
    )?;
    Ok(Handled::Event)
}
