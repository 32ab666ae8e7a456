//! The only code that writes to the ring buffer and that counts losses.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_ns,
};
use netobs_common::{
    event::{EventHeader, EventKind, HasKind},
    probe::{Loss, Program},
};

use crate::maps::{EVENTS, PROBE_COUNTS, RING_BYTES, WANTED, add_shared};

/// Wake the agent when as much as this begins to wait; below it, its own clock (ten times a second)
/// is enough. Not at every event from there on: a wake-up is an interrupt, and costs more than the
/// event.
const WAKE_BYTES: u64 = RING_BYTES as u64 / 4;
/// So many bytes beyond the mark it is woken: several events, so that two CPUs that pass the mark
/// together do not both take the other for the one that wakes it.
const WAKE_SPAN: u64 = 2048;

/// Counts one handled event of `program`.
#[inline(always)]
pub(crate) fn count(program: Program) {
    if let Some(counts) = PROBE_COUNTS.get_ptr_mut(program as u32) {
        // SAFETY: a live element of a per-CPU array. A softirq may run the second program of a
        // tracepoint in the middle of the first, and 5.10 runs any program in the middle of itself.
        unsafe { add_shared(&raw mut (*counts).events, 1) };
    }
}

/// Counts one loss of `program`.
#[inline(always)]
pub(crate) fn lose(program: Program, loss: Loss) {
    let mut index = loss as u64;
    // The compiler knows that no `Loss` is beyond the array, and would leave out the comparison; the
    // verifier of 5.10 does not know it of a number that was on the stack.
    // SAFETY: moves a register onto itself.
    unsafe { core::arch::asm!("{index} = {index}", index = inout(reg) index) };
    if index >= Loss::COUNT as u64 {
        return;
    }
    if let Some(counts) = PROBE_COUNTS.get_ptr_mut(program as u32) {
        // SAFETY: as in `count`; the index has just been held against the array's length. Losses are
        // rare, so that this one addition can be right wherever the program is interrupted.
        unsafe {
            let lost = (&raw mut (*counts).lost).cast::<u64>().add(index as usize);
            add_shared(lost, 1);
        }
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

/// Whether a program's invocation concerned netobs.
pub(crate) enum Handled {
    /// It did.
    Event,
    /// It was filtered out, and is not counted.
    NotOurs,
}

/// Whether somebody wants every event of this kind, not only those that tell of trouble.
#[inline(always)]
pub(crate) fn is_wanted(kind: EventKind) -> bool {
    WANTED
        .get(0)
        .is_some_and(|wanted| *wanted & (1 << (kind as u32)) != 0)
}

/// CLOCK_MONOTONIC, ns. To be read once per event and passed on: it takes as long as a map lookup.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Puts an event of this moment into the ring, or counts it as lost. `fill` gets the place of an event of zeros, but
/// for the header, and writes what it knows where it belongs: the stack has no room for whole events.
///
/// # Errors
///
/// Those of `fill`; the event is then given up.
#[inline(always)]
pub(crate) fn emit<T: HasKind + 'static>(
    program: Program,
    netns: u32,
    now: u64,
    fill: impl FnOnce(&mut T) -> Result<(), Loss>,
) -> Result<(), Loss> {
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        lose(program, Loss::RingFull);
        return Ok(());
    };
    let place = entry.as_mut_ptr();
    // SAFETY: the ring's memory is ours until it is submitted or discarded, big enough and aligned;
    // all its bytes are set before a reference to it is made, and any bytes are a valid event.
    let filled = unsafe {
        clear(place);
        place.cast::<EventHeader>().write(EventHeader {
            ktime_ns: now,
            kind: T::KIND as u32,
            netns,
        });
        fill(&mut *place)
    };
    if let Err(loss) = filled {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        return Err(loss);
    }
    let waiting = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    let flags = if waiting >= WAKE_BYTES && waiting < WAKE_BYTES + WAKE_SPAN {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    entry.submit(u64::from(flags));
    Ok(())
}

/// Sets every byte of an event's place to zero, a word at a time.
///
/// Not `write_bytes`: the compiler makes a call of it that goes byte by byte, which costs more than the
/// rest of the event, and which the verifier of 5.10 follows for so long that it gives up.
///
/// # Safety
///
/// `place` must be valid for writes of a `T`.
#[inline(always)]
unsafe fn clear<T>(place: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
    let words = place.cast::<u64>();
    let mut index = 0;
    while index < size_of::<T>() / 8 {
        // SAFETY: within the `T`. Volatile, or the loop becomes that same call.
        unsafe { words.add(index).write_volatile(0) };
        index += 1;
    }
}
