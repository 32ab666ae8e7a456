//! How the kernel side finds the argument of the `listen()` that opens a listener.
//!
//! `sk_max_ack_backlog` is the argument already cut to `somaxconn` (net/socket.c `__sys_listen`), and
//! so is what `inet_listen` is given. The registers that the caller entered the kernel with still hold
//! the argument itself. Reading them where the listener is seen in any case costs nothing between two
//! `listen()` calls; the tracepoint `syscalls:sys_enter_listen` would send every system call of every
//! process the slow way.

use netobs_common::kernel::{ListenCall, NO_REGISTERS, REGISTERS_BY_HELPER, REGISTERS_ON_STACK};

use super::{Exactness, ProbeStatus, Signal, SignalInfo};
use crate::sys::btf::Btf;

/// The number of the system call and its second argument: the first is the socket.
#[cfg(target_arch = "x86_64")]
const REGISTERS: Option<[&str; 2]> = Some(["pt_regs.orig_ax", "pt_regs.si"]);
#[cfg(target_arch = "aarch64")]
const REGISTERS: Option<[&str; 2]> = Some(["pt_regs.syscallno", "pt_regs.regs"]);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const REGISTERS: Option<[&str; 2]> = None;

/// Bytes from the second of [`REGISTERS`] to the argument: arm64 has an array, of which it is the
/// second element.
const INTO: u32 = if cfg!(target_arch = "aarch64") { 8 } else { 0 };

/// Where this kernel keeps the argument; `way` is [`NO_REGISTERS`] where that is not known.
pub(super) fn find(btf: &Btf) -> ListenCall {
    locate(btf).unwrap_or(ListenCall {
        way: NO_REGISTERS,
        ..ListenCall::default()
    })
}

fn locate(btf: &Btf) -> Option<ListenCall> {
    let offset = |path: &str| {
        let member = btf.member_offset(path).ok()?;
        member.bit.is_none().then_some(member.byte)
    };
    let [number, argument] = REGISTERS?;
    let call = ListenCall {
        number: offset(number)?,
        argument: offset(argument)?.checked_add(INTO)?,
        listen: u32::try_from(libc::SYS_listen).ok()?,
        ..ListenCall::default()
    };
    if btf
        .enum_value("bpf_func_id", "BPF_FUNC_task_pt_regs")
        .is_ok()
    {
        return Some(ListenCall {
            way: REGISTERS_BY_HELPER,
            ..call
        });
    }
    // `task_pt_regs` of the kernels without the helper: the last thing on the stack. Later x86
    // kernels leave room behind it (FRED, 6.9), and have the helper.
    let stack = btf.struct_size("thread_union").ok()?;
    Some(ListenCall {
        way: REGISTERS_ON_STACK,
        stack: offset("task_struct.stack")?,
        registers: stack.checked_sub(btf.struct_size("pt_regs").ok()?)?,
        ..call
    })
}

/// What sets the limit of a listener's accept queue: how it is known.
#[must_use]
pub fn signal(call: &ListenCall, probes: &[ProbeStatus]) -> SignalInfo {
    let opened = probes
        .iter()
        .any(|probe| probe.probe == "inet_sock_set_state" && probe.attached);
    let signal = Signal::ListenArgument;
    if opened && call.way != NO_REGISTERS {
        return SignalInfo {
            signal,
            method: "registers",
            exactness: Exactness::Exact,
            because: "read from the caller's registers at listen(); not known of listeners older \
                      than netobs, or opened by io_uring or a 32-bit program",
        };
    }
    SignalInfo {
        signal,
        method: "none",
        exactness: Exactness::Unavailable,
        because: if opened {
            "this kernel's type information does not tell where a system call's arguments are"
        } else {
            "a probe that it needs is not attached"
        },
    }
}
