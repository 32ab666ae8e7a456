//! The only code that writes to the ring buffer and that counts losses.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_ns,
    maps::ring_buf::RingBufEntry,
};
use netobs_common::{
    event::{EventHeader, HasKind},
    probe::{Loss, Program},
};

use crate::maps::{EVENTS, PROBE_COUNTS, RING_BYTES, add_shared};

/// Wake the agent when this much waits; below it, its own clock (ten times a second) is enough.
const WAKE_BYTES: u64 = RING_BYTES as u64 / 4;

/// Counts one handled event of `program`.
#[inline(always)]
pub(crate) fn count(program: Program) {
    if let Some(counts) = PROBE_COUNTS.get_ptr_mut(program as u32) {
        // SAFETY: a live element of a per-CPU array; programs of one CPU do not interrupt each
        // other in the middle of this addition (tracing programs run with migration disabled, and
        // an interrupt's addition is complete before ours goes on).
        unsafe { (*counts).events += 1 };
    }
}

/// Counts one loss of `program`.
#[inline(always)]
pub(crate) fn lose(program: Program, loss: Loss) {
    if let Some(counts) = PROBE_COUNTS.get_ptr_mut(program as u32) {
        // SAFETY: as in `count`; the index is a constant below the array's length.
        unsafe { (*counts).lost[loss as usize] += 1 };
    }
}

/// Counts the event, and the loss if handling it failed.
#[inline(always)]
pub(crate) fn finish(program: Program, outcome: Result<Handled, Loss>) {
    match outcome {
        Ok(Handled::Event) => count(program),
        Ok(Handled::NotOurs) => {}
        Err(loss) => {
            count(program);
            lose(program, loss);
        }
    }
}

/// As [`finish`], for a program that another run of itself may interrupt: those on sockets' packets
/// run in a process, and the kernel may turn to another one in the middle.
#[inline(always)]
pub(crate) fn finish_shared(program: Program, outcome: Result<Handled, Loss>) {
    if let (Ok(Handled::Event) | Err(_), Some(counts)) =
        (&outcome, PROBE_COUNTS.get_ptr_mut(program as u32))
    {
        // SAFETY: a live element of a per-CPU array.
        unsafe { add_shared(&raw mut (*counts).events, 1) };
    }
    if let Err(loss) = outcome {
        lose_shared(program, loss);
    }
}

/// As [`lose`], likewise.
#[inline(always)]
pub(crate) fn lose_shared(program: Program, loss: Loss) {
    if let Some(counts) = PROBE_COUNTS.get_ptr_mut(program as u32) {
        // SAFETY: a live element; the index is below the array's length.
        unsafe { add_shared((&raw mut (*counts).lost[loss as usize]).cast(), 1) };
    }
}

/// Whether a program's invocation concerned netobs.
pub(crate) enum Handled {
    /// It did.
    Event,
    /// It was filtered out, and is not counted.
    NotOurs,
}

/// A header for an event of type `T`, stamped now.
#[inline(always)]
pub(crate) fn header<T: HasKind>(netns: u32) -> EventHeader {
    // SAFETY: the helper has no preconditions.
    EventHeader {
        ktime_ns: unsafe { bpf_ktime_get_ns() },
        kind: T::KIND as u32,
        netns,
    }
}

/// Puts `event` into the ring, or counts it as lost.
#[inline(always)]
pub(crate) fn emit<T: HasKind + 'static>(program: Program, event: T) {
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        lose(program, Loss::RingFull);
        return;
    };
    entry.write(event);
    submit(entry);
}

/// Room for an event that is too big for the stack, to be filled and submitted; the loss is counted
/// as by [`finish_shared`].
#[inline(always)]
pub(crate) fn reserve<T: 'static>(program: Program) -> Option<RingBufEntry<T>> {
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none() {
        lose_shared(program, Loss::RingFull);
    }
    entry
}

/// Hands a filled event to the agent.
#[inline(always)]
pub(crate) fn submit<T>(entry: RingBufEntry<T>) {
    let flags = if EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) >= WAKE_BYTES {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    entry.submit(u64::from(flags));
}
