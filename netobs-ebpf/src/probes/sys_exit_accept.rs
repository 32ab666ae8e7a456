//! Connections taken from an accept queue, by what the system call returned: for kernels on which
//! `inet_csk_accept` cannot be probed.
//!
//! kernel: the tracepoints `syscalls:sys_exit_accept` and `sys_exit_accept4`; the descriptor is
//! looked up in the caller's table, as fs/file.c `files_lookup_fd_raw` does.
//! cost: once per call of accept(); and while a system call tracepoint is in use, the kernel sends every
//! system call of every process the slow way (kernel/tracepoint.c `syscall_regfunc`).
//! blind: accepts by io_uring, and a descriptor that another thread closes at once.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use netobs_common::probe::{Loss, Program};

use super::tcp_retransmit_skb::field;
use crate::{
    connections,
    emit::{Handled, finish},
    kread::with_current,
    maps::setting,
};

/// On both tracepoints.
#[tracepoint]
fn sys_exit_accept(ctx: TracePointContext) -> u32 {
    finish(Program::SysExitAccept, try_sys_exit_accept(&ctx));
    // 0 would hide the event from every perf user of the tracepoint.
    1
}

#[inline(always)]
fn try_sys_exit_accept(ctx: &TracePointContext) -> Result<Handled, Loss> {
    let result: i64 = field(ctx, setting!(classic.accept_result))?;
    let Ok(descriptor) = u32::try_from(result) else {
        return Ok(Handled::NotOurs); // an errno
    };
    let Some(sock) = with_current!(|task| task.socket(descriptor))? else {
        return Ok(Handled::NotOurs);
    };
    // What is remembered by this address is a TCP socket.
    if !connections::is_known(sock) && !sock.is_tcp()? {
        return Ok(Handled::NotOurs); // a Unix socket, most of the time
    }
    connections::accept(Program::SysExitAccept, sock).map(|()| Handled::Event)
}
