//! Retransmitted segments: data, SYN, tail loss probes.
//!
//! kernel: net/ipv4/tcp_output.c `__tcp_retransmit_skb`. Up to 6.12 the tracepoint fires when the
//! send succeeded; from 6.18 at every exit, with `err`.
//! cost: once per retransmitted skb, never for a packet that is sent once.
//! blind: on kernels up to 6.12, a failure after the counters moved has no event; `account` finds
//! it at the socket's next event or end. (fexit on the function would see it, but fires for none of
//! its calls on Debian's 6.1: the compiler has put the function into its callers there.)

use aya_ebpf::{
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use netobs_common::{
    event::Retransmit,
    ledger::{RetransmitCounts, RetransmitKey, RetransmitType, Role},
    probe::{Loss, Program},
};

use crate::{
    emit::{Handled, emit, finish, now},
    kread::{Skb, Sock, TcpSock},
    maps::setting,
    retransmits,
};

/// `TCP_CA_Recovery` and `TCP_CA_Loss` (include/uapi/linux/tcp.h).
const CA_RECOVERY: u8 = 3;
const CA_LOSS: u8 = 4;
/// `ICSK_TIME_LOSS_PROBE` (include/net/inet_connection_sock.h); a macro, the same in 5.10 to 7.2.
const TIME_LOSS_PROBE: u8 = 5;

#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn tcp_retransmit_skb(ctx: BtfTracePointContext) {
    let err: i32 = if setting!(retransmit_err) != 0 {
        ctx.arg(2)
    } else {
        0
    };
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&ctx, "tcp_retransmit_skb err {}", err);
    // SAFETY: the tracepoint's first two arguments, never null.
    let outcome = unsafe { try_tcp_retransmit_skb(ctx.arg(0), ctx.arg(1), err) };
    finish(Program::TcpRetransmitSkb, outcome);
}

/// # Safety
///
/// `sk` and `skb` must be typed pointers that the verifier tracks.
#[inline(always)]
unsafe fn try_tcp_retransmit_skb(sk: *const u8, skb: *const u8, err: i32) -> Result<Handled, Loss> {
    // SAFETY: the caller's contract.
    let (sock, skb) = unsafe { (Sock::new(sk), Skb::new(skb)) };
    let Some(tcp) = sock.tcp() else {
        return Ok(Handled::NotOurs);
    };

    let now = now();
    // A positive error is of the queue that the segment went into, after it was counted: the host's
    // backlog was full, mostly. A negative one may be of either side of the count.
    let own = if err >= 0 { skb.tcp_segments()? } else { 0 };
    let kind = classify(tcp, skb)?;
    let (key, known) = retransmits::key(sock, tcp.local_port()?, kind)?;
    let risen = retransmits::account(tcp, own, known.begun_ns != 0);
    // When the socket cannot be followed, the event alone is what is known of it.
    let segments = *risen.as_ref().unwrap_or(&own);

    // A failure after the counters moved shows as a rise of exactly this skb's segments; any other
    // surplus is of events that were not seen.
    let mine = if err >= 0 { own } else { skb.tcp_segments()? }.min(segments);
    let is_syn = kind as u8 == RetransmitType::Syn as u8;
    let counted = retransmits::add(
        key,
        RetransmitCounts {
            segments: mine.into(),
            failures: u64::from(err != 0),
            syn_segments: if is_syn { mine.into() } else { 0 },
        },
        now,
    );
    let unseen = segments - mine;
    let settled = if unseen == 0 {
        Ok(())
    } else {
        let syn_segments = if is_syn { unseen.into() } else { 0 };
        retransmits::add(
            RetransmitKey {
                kind: RetransmitType::Other as u8,
                ..key
            },
            RetransmitCounts {
                segments: unseen.into(),
                failures: 0,
                syn_segments,
            },
            now,
        )
    };

    let told = emit(
        Program::TcpRetransmitSkb,
        known.owner.netns,
        now,
        |event: &mut Retransmit| {
            event.sk = sock.address();
            sock.ends(&mut event.ends)?;
            event.owner = known.owner;
            event.age_ns = known.age(now);
            event.bytes_acked = tcp.bytes_acked()?;
            event.bytes_received = tcp.bytes_received()?;
            event.segments = mine;
            event.err = err;
            event.total_retrans = tcp.total_retrans()?;
            event.srtt_us = tcp.srtt_us()?;
            event.snd_cwnd = tcp.snd_cwnd()?;
            event.kind = kind as u8;
            event.role = known.role as u8;
            event.state = sock.state()?;
            event.timeouts = tcp.timeouts()?;
            Ok(())
        },
    );
    risen
        .and(counted)
        .and(settled)
        .and(told)
        .map(|()| Handled::Event)
}

/// Why the segment is sent again, from what the stack has set up before the call.
#[inline(always)]
fn classify(tcp: TcpSock, skb: Skb) -> Result<RetransmitType, Loss> {
    if skb.is_syn()? {
        return Ok(RetransmitType::Syn);
    }
    let ca_state = tcp.ca_state()?;
    Ok(if ca_state == CA_LOSS {
        RetransmitType::Timeout
    } else if ca_state == CA_RECOVERY {
        RetransmitType::Fast
    } else if tcp.pending()? == TIME_LOSS_PROBE {
        // tcp_send_loss_probe() clears icsk_pending only after the call.
        RetransmitType::TailLossProbe
    } else {
        RetransmitType::Other
    })
}

/// The same from the formatted record, for kernels without BTF: one skb counts as one segment
/// whatever its size, and the namespace is not known. A lower bound.
#[tracepoint]
fn tcp_retransmit_skb_classic(ctx: TracePointContext) -> u32 {
    let program = Program::TcpRetransmitSkbClassic;
    finish(program, try_tcp_retransmit_skb_classic(&ctx));
    // 0 would hide the event from every perf user of the tracepoint.
    1
}

#[inline(always)]
fn try_tcp_retransmit_skb_classic(ctx: &TracePointContext) -> Result<Handled, Loss> {
    let err: i32 = match setting!(classic.retransmit_err) {
        0 => 0,
        offset => field(ctx, offset)?,
    };
    let remote: u16 = field(ctx, setting!(classic.retransmit_dport))?;
    let state: i32 = field(ctx, setting!(classic.retransmit_state))?;
    let is_syn = state == i32::from(netobs_common::kernel::TCP_SYN_SENT);
    let kind = if is_syn {
        RetransmitType::Syn
    } else {
        RetransmitType::Other
    };
    let port = if u32::from(remote) >= setting!(ephemeral_low) {
        0
    } else {
        remote
    };
    let sent = u64::from(err >= 0);
    retransmits::add(
        RetransmitKey {
            port,
            role: Role::Client as u8,
            kind: kind as u8,
            ..RetransmitKey::default()
        },
        RetransmitCounts {
            segments: sent,
            failures: u64::from(err != 0),
            syn_segments: if is_syn { sent } else { 0 },
        },
        now(),
    )?;
    Ok(Handled::Event)
}

/// A field of a classic record, at an offset from its `format` file.
#[inline(always)]
pub(super) fn field<T: Copy>(ctx: &TracePointContext, offset: u32) -> Result<T, Loss> {
    // SAFETY: the helper copies from the record, and reports a fault.
    unsafe { ctx.read_at(offset as usize) }.map_err(|_| Loss::Unreadable)
}
