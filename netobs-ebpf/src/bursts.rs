//! Counts by bins of 100 ms, see `netobs_common::burst`.
//!
//! cost: a clock reading, a lookup and an addition per call, which is per retransmission or per
//! dropped connection; an insertion for the first of a bin.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};
use netobs_common::{
    burst::{BurstKey, BurstSignal, bin_of},
    probe::Loss,
};

use crate::maps::{BURSTS, add_shared};

/// Adds to the bin of now.
#[inline(always)]
pub(crate) fn add(signal: BurstSignal, subject: u64, more: u64) -> Result<(), Loss> {
    let key = BurstKey {
        subject,
        // SAFETY: the helper has no preconditions.
        bin: bin_of(unsafe { bpf_ktime_get_ns() }),
        signal: signal as u32,
    };
    if let Some(count) = BURSTS.get_ptr_mut(key) {
        // SAFETY: a live map element. The agent removes bins only when they have been over for a
        // while, so nothing is added to one that has been read for the last time.
        unsafe { add_shared(count, more) };
        return Ok(());
    }
    if BURSTS.insert(key, more, BPF_NOEXIST.into()).is_ok() {
        return Ok(());
    }
    // Another CPU was first, or the map is full.
    let count = BURSTS.get_ptr_mut(key).ok_or(Loss::MapFull)?;
    // SAFETY: as above.
    unsafe { add_shared(count, more) };
    Ok(())
}
