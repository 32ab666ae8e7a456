//! How the kernel side finds the argument of the `listen()` that opens a listener.
//!
//! `sk_max_ack_backlog` is the argument already cut to `somaxconn` (net/socket.c `__sys_listen`), and
//! so is what `inet_listen` is given. The registers that the caller entered the kernel with still hold
//! the argument itself. Reading them where the listener is seen in any case costs nothing between two
//! `listen()` calls; the tracepoint `syscalls:sys_enter_listen` would send every system call of every
//! process the slow way.

use netobs_common::kernel::ListenCall;

use super::{Exactness, ProbeStatus, Signal, SignalInfo, signals::DETACHED};
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

/// Where this kernel keeps the argument; not `known` where it cannot be reached.
pub(super) fn find(btf: &Btf) -> ListenCall {
    locate(btf).unwrap_or_default()
}

fn locate(btf: &Btf) -> Option<ListenCall> {
    let offset = |path: &str| {
        let member = btf.member_offset(path).ok()?;
        member.bit.is_none().then_some(member.byte)
    };
    // Without the helper (before 5.15) the registers' place depends on the size of kernel stacks,
    // which type information does not tell.
    btf.enum_value("bpf_func_id", "BPF_FUNC_task_pt_regs")
        .ok()?;
    let [number, argument] = REGISTERS?;
    Some(ListenCall {
        known: 1,
        number: offset(number)?,
        argument: offset(argument)?.checked_add(INTO)?,
        listen: u32::try_from(libc::SYS_listen).ok()?,
    })
}

/// How it is known what a listener asked for.
#[must_use]
pub fn signal(call: &ListenCall, probes: &[ProbeStatus]) -> SignalInfo {
    let opened = probes
        .iter()
        .any(|probe| probe.probe == "inet_sock_set_state" && probe.attached);
    let signal = Signal::ListenArgument;
    if opened && call.known != 0 {
        return SignalInfo {
            signal,
            method: "registers",
            exactness: Exactness::Exact,
            because: "read from the caller's registers at listen(); not known of listeners older \
                      than netobs, or opened by io_uring or a 32-bit program",
        };
    }
    let because = if opened {
        "reading a caller's registers takes the helper bpf_task_pt_regs (kernels from 5.15 on)"
    } else {
        DETACHED
    };
    SignalInfo::unavailable(signal, because)
}
