//! The functions that drop connections for a listener, each at entry and exit.
//!
//! kernel: net/ipv4/tcp_ipv4.c, net/ipv6/tcp_ipv6.c, net/ipv4/tcp_minisocks.c,
//! net/ipv4/syncookies.c, net/ipv6/syncookies.c, net/mptcp/subflow.c. Together they enclose every
//! place that raises ListenDrops, and every one but a helper for XDP SYN cookies that raises
//! ListenOverflows.
//!
//! Where fentry cannot be had, kprobes do the same, near-exactly: the kernel runs no kprobe program
//! on a CPU that is in another one or in a `bpf()` map operation.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use netobs_common::{
    ledger::Stage,
    probe::{Loss, Program},
};

use crate::{
    differential::{enter, exit},
    emit::{Handled, finish},
    kread::{Access, Packet, Probed, Sock, Typed},
};

/// Four programs for one function: `$listener` says how to find the listener at entry from the
/// function's arguments (`None`: this call is of no interest).
macro_rules! pair {
    ($program:ident, $stage:ident, $listener:ident, $function:literal:
     $entry:ident $exit:ident $kprobe:ident $kretprobe:ident) => {
        #[fentry(function = $function)]
        fn $entry(ctx: FEntryContext) {
            // SAFETY: the function's arguments, typed by the verifier.
            let listener = unsafe { $listener::<Typed>(ctx.arg(0), || ctx.arg(3)) };
            let packet = packet(Program::$program, || ctx.arg(1));
            finish(
                Program::$program,
                entered(Program::$program, listener, packet),
            );
        }

        #[fexit(function = $function)]
        fn $exit(_ctx: FExitContext) {
            finish(Program::$program, exit(Program::$program, Stage::$stage));
        }

        #[kprobe]
        fn $kprobe(ctx: ProbeContext) -> u32 {
            let Some(first) = ctx.arg(0) else { return 0 };
            // SAFETY: `Probed` takes any address.
            let listener = unsafe { $listener::<Probed>(first, || ctx.arg(3).unwrap_or(0)) };
            let packet = packet(Program::$program, || ctx.arg(1).unwrap_or(0));
            finish(
                Program::$program,
                entered(Program::$program, listener, packet),
            );
            0
        }

        #[kretprobe]
        fn $kretprobe(_ctx: RetProbeContext) -> u32 {
            finish(Program::$program, exit(Program::$program, Stage::$stage));
            0
        }
    };
}

/// The second argument is the packet, except that of `tcp_req_err`.
#[inline(always)]
fn packet(function: Program, second: impl FnOnce() -> u64) -> Packet {
    match function {
        Program::TcpReqErr => Packet::at(0),
        _ => Packet::at(second()),
    }
}

#[inline(always)]
fn entered<A: Access>(
    function: Program,
    listener: Result<Option<Sock<A>>, Loss>,
    packet: Packet,
) -> Result<Handled, Loss> {
    match listener? {
        Some(listener) => enter(function, listener, packet),
        None => Ok(Handled::NotOurs),
    }
}

/// The first argument is the listener.
///
/// # Safety
///
/// See [`Sock::new`].
#[inline(always)]
unsafe fn first<A: Access>(
    sk: *const u8,
    _fourth: impl FnOnce() -> i32,
) -> Result<Option<Sock<A>>, Loss> {
    // SAFETY: the caller's contract.
    Ok(Some(unsafe { Sock::new(sk) }))
}

/// `tcp_check_req(sk, skb, req, fastopen, ...)`: with `fastopen` it may run with softirqs on, and
/// never drops.
///
/// # Safety
///
/// See [`Sock::new`].
#[inline(always)]
unsafe fn unless_fastopen<A: Access>(
    sk: *const u8,
    fastopen: impl FnOnce() -> i32,
) -> Result<Option<Sock<A>>, Loss> {
    if fastopen() & 0xff != 0 {
        return Ok(None);
    }
    // SAFETY: the caller's contract.
    Ok(Some(unsafe { Sock::new(sk) }))
}

/// The first argument is a request; the listener is its `rsk_listener`. That pointer shares its
/// place with an integer, so the verifier does not know its type.
///
/// # Safety
///
/// See [`Sock::new`].
#[inline(always)]
unsafe fn of_request<A: Access>(
    request: *const u8,
    _fourth: impl FnOnce() -> i32,
) -> Result<Option<Sock<Probed>>, Loss> {
    // SAFETY: the caller's contract; a request begins like a socket, and `Probed` takes any address.
    unsafe {
        let listener = Sock::<A>::new(request).listener()?;
        Ok((!listener.is_null()).then(|| Sock::new(listener)))
    }
}

pair!(TcpV4ConnRequest, Syn, first, "tcp_v4_conn_request":
    v4_conn_entry v4_conn_exit v4_conn_kprobe v4_conn_kret);
pair!(TcpV6ConnRequest, Syn, first, "tcp_v6_conn_request":
    v6_conn_entry v6_conn_exit v6_conn_kprobe v6_conn_kret);
pair!(SubflowV4ConnRequest, Syn, first, "subflow_v4_conn_request":
    sub4_conn_entry sub4_conn_exit sub4_conn_kprobe sub4_conn_kret);
pair!(SubflowV6ConnRequest, Syn, first, "subflow_v6_conn_request":
    sub6_conn_entry sub6_conn_exit sub6_conn_kprobe sub6_conn_kret);
pair!(TcpCheckReq, Ack, unless_fastopen, "tcp_check_req":
    check_req_entry check_req_exit check_req_kprobe check_req_kret);
pair!(CookieV4Check, Ack, first, "cookie_v4_check":
    cookie4_entry cookie4_exit cookie4_kprobe cookie4_kret);
pair!(CookieV6Check, Ack, first, "cookie_v6_check":
    cookie6_entry cookie6_exit cookie6_kprobe cookie6_kret);
pair!(TcpReqErr, Other, of_request, "tcp_req_err":
    req_err_entry req_err_exit req_err_kprobe req_err_kret);
