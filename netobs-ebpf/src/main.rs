//! The kernel side of netobs.
#![no_std]
#![no_main]
#![allow(
    missing_docs,
    reason = "the entry points that the macros generate carry none"
)]

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Sees each retransmitted segment.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn tcp_retransmit(_: BtfTracePointContext) -> i32 {
    0
}

/// Never reached: the verifier refuses a program in which it could be.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
