//! Name lookups under way, and what is counted of them.
//!
//! A lookup is one id on one socket. Whoever deletes it from `DNS_WAITING` counts its end: a program
//! here when an answer comes, the agent when none has come in time. So each ends once.

use aya_ebpf::{
    bindings::BPF_NOEXIST, helpers::bpf_skb_load_bytes, maps::HashMap, programs::SkBuffContext,
};
use netobs_common::{
    dns::{
        AnswerCounts, AnswerKey, DnsControl, DnsCounts, LATE_NS, LATENCY_BOUNDS_NS, Lookup,
        LookupKey, QUESTION_BYTES, RESPONSE_CODES,
    },
    event::{DNS_ANSWERED, DNS_LATE, DNS_UNANSWERED, Dns, Endpoints, EventKind},
    owner::{Owner, OwnerKey},
    probe::{Loss, Program},
};

use crate::{
    emit::{emit, is_wanted, now},
    maps::{DNS_ANSWERS, DNS_CONTROL, DNS_COUNTS, DNS_GIVEN_UP, DNS_WAITING, add_shared},
};

/// Response codes that are no failure: NOERROR, and NXDOMAIN, which search lists bring about.
const NOERROR: u16 = 0;
const NXDOMAIN: u16 = 3;
/// Of a message's flags: the answer was cut short; its response code.
const TC: u16 = 0x0200;
const RCODE: u16 = 0x000f;

/// What entries are made of before they are filled: too big for the stack.
static EMPTY_LOOKUP: Lookup = Lookup::EMPTY;
static EMPTY_ANSWERS: AnswerCounts = AnswerCounts {
    buckets: [0; LATENCY_BOUNDS_NS.len() + 1],
    sum_ns: 0,
};
static EMPTY_COUNTS: DnsCounts = DnsCounts {
    queries: 0,
    repeats: 0,
    unanswered: 0,
    late: 0,
    truncated: 0,
    strays: 0,
    malformed: 0,
};

/// A query in hand.
pub(crate) struct Question {
    /// Where in the packet the question begins.
    pub(crate) at: usize,
    /// The message's id.
    pub(crate) id: u16,
}

/// An answer in hand.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    /// The flags of its header.
    pub(crate) flags: u16,
    /// Records that its header claims.
    pub(crate) answers: u16,
}

/// Adds one to a member of an owner's [`DnsCounts`].
macro_rules! tally {
    ($owner:expr, $member:ident) => {
        match entry(&DNS_COUNTS, $owner, &EMPTY_COUNTS) {
            // SAFETY: a live map element.
            Some(counts) => {
                unsafe { add_shared(&raw mut (*counts).$member, 1) };
                Ok(())
            }
            None => Err(Loss::MapFull),
        }
    };
}

/// The element of a key, made if it is not there; `None` when the map is full.
#[inline(always)]
fn entry<K, V>(map: &HashMap<K, V>, key: &K, empty: &V) -> Option<*mut V> {
    match map.get_ptr_mut(key) {
        Some(found) => Some(found),
        None => {
            // Another CPU may have made it meanwhile.
            let _ = map.insert(key, empty, BPF_NOEXIST.into());
            map.get_ptr_mut(key)
        }
    }
}

#[inline(always)]
fn control() -> Result<DnsControl, Loss> {
    DNS_CONTROL.get(0).copied().ok_or(Loss::MapFull)
}

/// A datagram that is no message.
#[inline(always)]
pub(crate) fn malformed(owner: &OwnerKey) -> Result<(), Loss> {
    tally!(owner, malformed)
}

/// A query was sent.
#[inline(always)]
pub(crate) fn ask(
    ctx: &SkBuffContext,
    key: &LookupKey,
    owner: &Owner,
    question: &Question,
    ends: impl FnOnce(&mut Endpoints) -> Result<(), Loss>,
) -> Result<(), Loss> {
    let owner_key = owner.key();
    let counted = tally!(&owner_key, queries);
    let rest_bytes = ctx.len().saturating_sub(question.at as u32);
    if let Some(waiting) = DNS_WAITING.get_ptr_mut(key) {
        // SAFETY: a live map element.
        let waiting = unsafe { &mut *waiting };
        if same(ctx, waiting, question, rest_bytes) {
            // Two threads of a process would both be right about it.
            waiting.sends += 1;
            return tally!(&owner_key, repeats).and(counted);
        }
        // The program has given the old one up: it cannot tell its answer from the new one's.
        let (started_ns, old) = (waiting.started_ns, waiting.owner.key());
        let latency_ns = now().saturating_sub(started_ns);
        if end(key, waiting, latency_ns, DNS_UNANSWERED, None, true) {
            tally!(&old, unanswered)?;
        }
    }
    DNS_WAITING
        .insert(key, &EMPTY_LOOKUP, BPF_NOEXIST.into())
        .map_err(|_| Loss::MapFull)?;
    let waiting = DNS_WAITING.get_ptr_mut(key).ok_or(Loss::MapFull)?;
    // SAFETY: a live map element. The packet has not left yet, so no answer looks at it, and the
    // agent passes over it until it has a time.
    let waiting = unsafe { &mut *waiting };
    waiting.owner = *owner;
    waiting.sends = 1;
    waiting.id = question.id;
    waiting.rest_bytes = rest_bytes;
    let known = ends(&mut waiting.ends);
    copy_question(ctx, waiting, question.at, rest_bytes);
    // SAFETY: a field of that element; volatile, so that it comes last.
    unsafe { core::ptr::write_volatile(&raw mut waiting.started_ns, now()) };
    known.and(counted)
}

/// Whether a query asks what is asked already: the same length, the same beginning.
#[inline(always)]
fn same(ctx: &SkBuffContext, waiting: &Lookup, question: &Question, rest_bytes: u32) -> bool {
    const PROBE: usize = 16;
    if waiting.rest_bytes != rest_bytes {
        return false;
    }
    match ctx.load::<[u8; PROBE]>(question.at) {
        Ok(begin) => waiting.question[..PROBE] == begin,
        Err(_) => true, // a shorter one: the root's, or nothing
    }
}

/// Copies what follows the header, as far as there is room.
#[inline(always)]
fn copy_question(ctx: &SkBuffContext, waiting: &mut Lookup, at: usize, rest_bytes: u32) {
    // The last byte's place; of nothing a huge one, and the helper refuses.
    let last = u64::from(rest_bytes).wrapping_sub(1);
    let mut bytes = last.min(QUESTION_BYTES as u64 - 1);
    // SAFETY: the destination has QUESTION_BYTES bytes. The addition is hidden from the compiler:
    // what it makes of `last + 1` does not show every kernel's verifier that it is not 0.
    let copied = unsafe {
        core::arch::asm!("{bytes} += 1", bytes = inout(reg) bytes);
        bpf_skb_load_bytes(
            ctx.skb.skb.cast(),
            at as u32,
            waiting.question.as_mut_ptr().cast(),
            bytes as u32,
        )
    };
    if copied == 0 {
        waiting.question_bytes = bytes as u16;
    }
}

/// An answer arrived. `nobody` stands for the owner of one that was not asked for.
#[inline(always)]
pub(crate) fn answered(key: &LookupKey, nobody: &OwnerKey, answer: Answer) -> Result<(), Loss> {
    let Some(waiting) = DNS_WAITING.get_ptr_mut(key) else {
        return unexpected(key, nobody);
    };
    let control = control()?;
    // SAFETY: a live map element.
    let waiting = unsafe { &*waiting };
    // Before it is deleted: its memory may become another's at once.
    let (started_ns, owner) = (waiting.started_ns, waiting.owner.key());
    let latency_ns = now().saturating_sub(started_ns);
    if latency_ns > control.timeout_ns {
        // The agent has not come round to it yet.
        if !end(key, waiting, latency_ns, DNS_LATE, Some(answer), true) {
            return unexpected(key, nobody);
        }
        return tally!(&owner, unanswered).and(tally!(&owner, late));
    }
    let response = answer.flags & RCODE;
    let failed = response != NOERROR && response != NXDOMAIN;
    let report = failed || latency_ns > control.slow_ns || is_wanted(EventKind::Dns);
    if !end(key, waiting, latency_ns, DNS_ANSWERED, Some(answer), report) {
        return unexpected(key, nobody);
    }
    let truncated = if answer.flags & TC != 0 {
        tally!(&owner, truncated)
    } else {
        Ok(())
    };
    count(owner, response, latency_ns).and(truncated)
}

/// Nothing waits for it: the answer came too late, or was not asked for.
#[inline(always)]
fn unexpected(key: &LookupKey, nobody: &OwnerKey) -> Result<(), Loss> {
    if let Some(given_up) = DNS_GIVEN_UP.get_ptr_mut(key) {
        // SAFETY: a live map element.
        let (started_ns, owner) = unsafe { ((*given_up).started_ns, (*given_up).owner) };
        if DNS_GIVEN_UP.remove(key).is_ok() && now().saturating_sub(started_ns) < LATE_NS {
            return tally!(&owner, late);
        }
    }
    tally!(nobody, strays)
}

/// Takes a lookup out of those that wait, and reports it. `false` when somebody else was quicker, and
/// counts it.
#[inline(always)]
fn end(
    key: &LookupKey,
    waiting: &Lookup,
    latency_ns: u64,
    outcome: u16,
    answer: Option<Answer>,
    report: bool,
) -> bool {
    let mut mine = None;
    if report {
        // What fails here is that it is not ours, or that the ring is full, which is counted.
        let _ = emit::<Dns>(Program::Dns, waiting.owner.netns, now(), |event| {
            event.latency_ns = latency_ns;
            // SAFETY: both are plain data, and do not overlap.
            unsafe { core::ptr::copy_nonoverlapping(waiting, &raw mut event.lookup, 1) };
            event.outcome = outcome;
            (event.answer_flags, event.answers) =
                answer.map_or((0, 0), |answer| (answer.flags, answer.answers));
            // Now that its memory is not needed any more.
            let removed = DNS_WAITING.remove(key);
            mine = Some(removed.is_ok());
            removed.map_err(|_| Loss::Unreadable)
        });
    }
    match mine {
        Some(mine) => mine,
        None => DNS_WAITING.remove(key).is_ok(),
    }
}

/// Counts an answered lookup.
#[inline(always)]
fn count(owner: OwnerKey, response: u16, latency_ns: u64) -> Result<(), Loss> {
    let key = AnswerKey {
        owner,
        response: u32::from(response) % RESPONSE_CODES,
        reserved: 0,
    };
    let Some(counts) = entry(&DNS_ANSWERS, &key, &EMPTY_ANSWERS) else {
        return Err(Loss::MapFull);
    };
    let mut bucket = 0;
    while bucket < LATENCY_BOUNDS_NS.len() && latency_ns > LATENCY_BOUNDS_NS[bucket] {
        bucket += 1;
    }
    // SAFETY: a live map element; the index is at most the number of bounds, one below the length.
    unsafe {
        add_shared((&raw mut (*counts).buckets[bucket]).cast(), 1);
        add_shared(&raw mut (*counts).sum_ns, latency_ns);
    }
    Ok(())
}
