//! Two programs on one tracepoint, so that no event is skipped.
//!
//! The kernel does not run a tracing program on a CPU on which it is running (kernel/trace/bpf_trace.c
//! `__bpf_trace_run`, `prog->active`). Some events happen in system calls with softirqs on: when one
//! is interrupted while its program runs, and the softirq has an event of the same kind, that one is
//! skipped. So a second program, which is active on its own account, is attached behind the first:
//! it does nothing for an event that the first has in hand, and hands one that the first was not run
//! for over to the first one's body, by a tail call, to which the kernel has no objection. A softirq is
//! not interrupted by another one: where the kernel does not preempt system calls nothing is skipped by
//! both, and where it does it takes two preempted ones on a CPU.
//!
//! How the second knows: the first notes on its CPU which event it has in hand before it does
//! anything. Whatever interrupts it finds a note that is not its own. An event that comes between the
//! two programs of another one keeps that one's note, and puts it back.
//!
//! Events of no interest are told by the tracepoint's arguments alone, by both programs alike, before
//! any of this.
//!
//! cost: one more program call, a lookup and a comparison per event.

use aya_ebpf::{EbpfContext, maps::ProgramArray};
use netobs_common::probe::Relieved;

use crate::maps::{TURNS, add_shared};

/// An event: an address that the verifier knows as a pointer, with which nothing can be calculated,
/// and what happens there.
pub(crate) type Event = (u64, u64);

/// Notes that the first program has this event in hand; or nothing, if the second one hands it over.
#[inline(always)]
pub(crate) fn take(what: Relieved, event: Event) {
    if let Some(turn) = TURNS.get_ptr_mut(what as u32) {
        // SAFETY: a live element of this CPU. Whoever comes in the middle leaves it as it was, or
        // leaves a note that is no other event's.
        unsafe {
            if (&raw const (*turn).handed[0]).read_volatile() == event.0
                && (&raw const (*turn).handed[1]).read_volatile() == event.1
            {
                (&raw mut (*turn).handed).write_volatile([0; 2]);
                add_shared(&raw mut (*turn).stood_in, 1);
                return;
            }
            let before = (&raw const (*turn).event).read_volatile();
            (&raw mut (*turn).before).write_volatile(before);
            (&raw mut (*turn).event[0]).write_volatile(event.0);
            (&raw mut (*turn).event[1]).write_volatile(event.1);
        }
    }
}

/// Runs the first program for an event that it was not run for; returns if it was.
#[inline(always)]
pub(crate) fn stand_in<C: EbpfContext>(ctx: &C, what: Relieved, event: Event, body: &ProgramArray) {
    let Some(turn) = TURNS.get_ptr_mut(what as u32) else {
        return;
    };
    // SAFETY: as in `take`.
    unsafe {
        if (&raw const (*turn).event[0]).read_volatile() == event.0
            && (&raw const (*turn).event[1]).read_volatile() == event.1
        {
            let before = (&raw const (*turn).before).read_volatile();
            (&raw mut (*turn).event).write_volatile(before);
            return;
        }
        (&raw mut (*turn).handed[0]).write_volatile(event.0);
        (&raw mut (*turn).handed[1]).write_volatile(event.1);
        // It does not come back. Should it, the array is empty: the kernel's count of skipped runs
        // then stays without its counterpart, which shows as a loss.
        body.tail_call(ctx, 0);
    }
}
