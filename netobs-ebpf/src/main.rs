//! The kernel side of netobs: programs that watch TCP and count in the kernel.
//!
//! One module per probe under `probes/`; everything that is dangerous has one home: reading kernel
//! memory in `kread` (registers of a system call in `registers`), the ring buffer in `emit`, the maps in `maps`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)] // one atomic addition, see `maps::add_shared`

mod bursts;
mod connections;
mod differential;
mod drops;
mod emit;
mod kread;
mod lookups;
mod maps;
mod owner;
mod probes;
mod registers;
mod retransmits;
mod turns;

/// The verifier refuses a loop without end, so a reachable panic fails at load, never at run time.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers such as `bpf_probe_read_kernel` are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
