//! Counts by bins of 100 ms, see `netobs_common::burst`.
//!
//! cost: a lookup and an addition per call, which is per retransmission or per
//! dropped connection; an insertion for the first of a bin.

use aya_ebpf::bindings::BPF_NOEXIST;
use netobs_common::{
    burst::{BurstKey, BurstSignal, bin_of},
    probe::Loss,
};

use crate::maps::{BURSTS, add_shared};

/// Adds to the bin of now. Returns what was in it before, roughly where CPUs meet.
#[inline(always)]
pub(crate) fn add(signal: BurstSignal, subject: u64, more: u64, now: u64) -> Result<u64, Loss> {
    let key = BurstKey {
        subject,
        bin: bin_of(now),
        signal: signal as u32,
    };
    let count = match BURSTS.get_ptr_mut(key) {
        Some(count) => count,
        None if BURSTS.insert(key, more, BPF_NOEXIST.into()).is_ok() => return Ok(0),
        // Another CPU was first, or the map is full.
        None => BURSTS.get_ptr_mut(key).ok_or(Loss::MapFull)?,
    };
    // SAFETY: a live map element. The agent removes bins only when they have been over for a while,
    // so nothing is added to one that has been read for the last time.
    unsafe {
        let before = core::ptr::read_volatile(count);
        add_shared(count, more);
        Ok(before)
    }
}
