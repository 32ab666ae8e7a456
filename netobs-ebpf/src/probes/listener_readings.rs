//! A reading of every known listener, whatever its namespace.
//!
//! kernel: kernel/bpf/map_iter.c `bpf_iter__bpf_map_elem`, over the `LISTENERS` map.
//! cost: a handful of reads per listener, each time the agent asks; nothing in between.

use aya_ebpf::helpers::generated::bpf_seq_write;
use netobs_common::{
    ledger::{Listener, SocketReading},
    probe::{Loss, Program},
};

use super::listeners;
use crate::{
    emit::{Handled, finish},
    kread::{Probed, Sock},
};

/// `struct bpf_iter__bpf_map_elem`.
#[repr(C)]
struct IterMapElem {
    meta: *const IterMeta,
    map: *const u8,
    key: *const u64,
    value: *mut Listener,
}

/// `struct bpf_iter_meta`.
#[repr(C)]
struct IterMeta {
    seq: *mut aya_ebpf::bindings::seq_file,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
fn listener_readings(ctx: *mut core::ffi::c_void) -> i32 {
    finish(Program::ListenerReadings, try_listener_readings(ctx.cast()));
    0
}

#[inline(always)]
fn try_listener_readings(ctx: *const IterMapElem) -> Result<Handled, Loss> {
    // SAFETY: the context of an `iter/bpf_map_elem` program.
    let (meta, key, value) = unsafe { ((*ctx).meta, (*ctx).key, (*ctx).value) };
    if key.is_null() || value.is_null() {
        return Ok(Handled::NotOurs); // the end
    }
    // SAFETY: not null; a whole `Listener`.
    if unsafe { (*value).opened_ns } == 0 {
        return Ok(Handled::NotOurs); // being made
    }
    // SAFETY: not null; the verifier holds the size against the map's when it is attached. The
    // address was that of a live listener when the entry was made, and listeners are freed by RCU,
    // under whose read lock this runs; `Probed` reads it safely in any case.
    let sock: Sock<Probed> = unsafe { Sock::new(*key as *const u8) };
    let socket = listeners::read(sock)?;
    // SAFETY: `meta` is valid for the program's run; both are read whole, and follow each other in
    // `ListenerReading`.
    let failed = unsafe {
        let seq = (*meta).seq;
        bpf_seq_write(
            seq,
            (&raw const socket).cast(),
            size_of::<SocketReading>() as u32,
        ) != 0
            || bpf_seq_write(seq, value.cast(), size_of::<Listener>() as u32) != 0
    };
    // A full buffer is not a loss: the kernel enlarges it and calls again for the same entry.
    if failed {
        return Ok(Handled::NotOurs);
    }
    // The next reading's peak begins here. An enqueue in this very moment raises it again with the
    // next one.
    // SAFETY: a live map element that iterators of this kind may write.
    unsafe { core::ptr::write_volatile(&raw mut (*value).peak, 0) };
    Ok(Handled::Event)
}
