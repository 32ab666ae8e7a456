//! What the program in user space passed to the system call that it is in.
//!
//! A listener's limit in the kernel is the lesser of the `listen()` argument and `somaxconn`: when
//! `inet_sock_set_state` shows the socket, the argument itself is gone. It is still in the registers
//! that the caller entered the kernel with, so no probe of its own is needed for it.
//!
//! kernel: net/socket.c `__sys_listen`; arch/x86/include/asm/ptrace.h, arch/arm64 likewise.
//! blind: `listen()` by io_uring (since 6.11), by 32-bit programs, and of the kernel's own sockets:
//! the number of the system call is another one then.

use aya_ebpf::helpers::{
    bpf_probe_read_kernel,
    generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
};
use netobs_common::ledger::ASKED_UNKNOWN;

use crate::maps::setting;

/// What the `listen()` asks for that `current` is in: see `Listener::asked`.
#[inline(always)]
pub(crate) fn listen_argument() -> u32 {
    try_listen_argument().unwrap_or(ASKED_UNKNOWN)
}

#[inline(always)]
fn try_listen_argument() -> Option<u32> {
    if setting!(listen_call.known) == 0 {
        // The verifier sees a constant and never looks at what follows: a kernel need not know the
        // helpers.
        return None;
    }
    // SAFETY: the first helper's result, never null, is what the second takes.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) }.cast_unsigned();
    let number: u32 = read(registers + u64::from(setting!(listen_call.number)))?;
    if number != setting!(listen_call.listen) {
        return None;
    }
    let argument: i32 = read(registers + u64::from(setting!(listen_call.argument)))?;
    Some(u32::try_from(argument).unwrap_or(i32::MAX as u32))
}

#[inline(always)]
fn read<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address and reports a fault.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}
