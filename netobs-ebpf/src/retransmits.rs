//! Accounting of retransmitted segments: which socket, how many, to which key.
//!
//! `total_retrans` of the socket is what counts: an event tells why, the difference since the last
//! look tells how many. So nothing is lost when an event is (a late failure on kernels up to 6.12,
//! which fire no event for it; a softirq that the kernel ran no program in): the next event of the
//! socket, or its end, finds the difference, as [`RetransmitType::Other`].

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use netobs_common::{
    burst::BurstSignal,
    ledger::{RetransmitCounts, RetransmitKey, RetransmitType, Role, SocketRetransmits},
    probe::Loss,
};

use crate::{
    bursts,
    emit::now,
    kread::{Sock, TcpSock, Typed},
    maps::{BASELINED, RETRANSMITS, SOCKETS, add_shared, setting},
    owner::{self, Known},
};

/// In place of the agent's mark that all older sockets have been seen: and one was met since then for
/// which there was no room.
const UNFOLLOWED: u32 = 2;

/// Whether every socket that existed at the agent's start has been seen.
#[inline(always)]
pub(crate) fn baselined() -> bool {
    BASELINED.get(0).is_some_and(|flag| *flag != 0)
}

/// Whether, besides, there was room for each since then: of a socket that is not known, no segment was
/// counted yet.
#[inline(always)]
fn follows_all() -> bool {
    BASELINED
        .get(0)
        .is_some_and(|flag| *flag != 0 && *flag != UNFOLLOWED)
}

/// Segments that `RetransSegs` has risen by for this socket since the last look; `seen` of them
/// are the event's own, which is all that is known of a socket older than the agent.
#[inline(always)]
pub(crate) fn account(tcp: TcpSock, seen: u32) -> Result<u32, Loss> {
    let total = tcp.total_retrans()?;
    let sock = tcp.sock();
    let now = SocketRetransmits {
        peer: sock.peer()?,
        accounted: total,
        reserved: 0,
    };
    if let Some(entry) = SOCKETS.get_ptr_mut(sock.address()) {
        // SAFETY: a live map element. The socket is locked or owned by this softirq wherever
        // segments are retransmitted, so no other CPU writes the entry.
        let before = unsafe { entry.replace(now) };
        let same = before.peer == now.peer && before.accounted <= total;
        return Ok(if same {
            total - before.accounted
        } else {
            total
        });
    }
    if SOCKETS.insert(sock.address(), now, BPF_ANY.into()).is_err() {
        unfollowed();
        return Err(Loss::MapFull);
    }
    Ok(if follows_all() { total } else { seen })
}

/// A socket could not be remembered, and is counted by its events. When it is met again, there may be
/// room: its total would be credited a second time. So from now on sockets that are not known are again
/// what they are before the agent has seen all: of unknown age. What no event tells of such a one
/// stays unattributed.
#[inline(always)]
fn unfollowed() {
    if let Some(flag) = BASELINED.get_ptr_mut(0).filter(|_| baselined()) {
        // SAFETY: a live element of the map. Every program that writes it writes the same.
        unsafe { flag.write(UNFOLLOWED) };
    }
}

/// Remembers what a socket that is older than the agent had retransmitted before.
#[inline(always)]
pub(crate) fn baseline(tcp: TcpSock) -> Result<(), Loss> {
    let total = tcp.total_retrans()?;
    if total == 0 {
        return Ok(());
    }
    let sock = tcp.sock();
    let now = SocketRetransmits {
        peer: sock.peer()?,
        accounted: total,
        reserved: 0,
    };
    // An event may have been there first: its entry is as good, and the error tells just that, or
    // that the map is full, in which case the flag that says all were seen must not be set.
    match SOCKETS.insert(sock.address(), now, BPF_NOEXIST.into()) {
        Err(errno) if errno != -17 => Err(Loss::MapFull), // EEXIST
        _ => Ok(()),
    }
}

/// Attributes what no event told of, at the end of the socket's life or use, or (`syn`) of its
/// handshake, when every segment so far was a SYN.
#[inline(never)] // a stack of its own
pub(crate) fn settle(tcp: TcpSock, syn: bool) -> Result<(), Loss> {
    let total = tcp.total_retrans()?;
    if total == 0 || (!follows_all() && SOCKETS.get_ptr(tcp.sock().address()).is_none()) {
        return Ok(());
    }
    let segments = u64::from(account(tcp, 0)?);
    if segments == 0 {
        return Ok(());
    }
    let (key, _) = key(tcp.sock(), tcp.local_port()?, RetransmitType::Other)?;
    add(
        key,
        RetransmitCounts {
            segments,
            failures: 0,
            syn_segments: if syn { segments } else { 0 },
        },
        now(),
    )
}

/// Forgets a socket.
#[inline(always)]
pub(crate) fn forget(sock: Sock<Typed>) {
    // Most sockets never retransmitted: that there is no entry is the usual case.
    let _ = SOCKETS.remove(sock.address());
}

/// What a retransmission of `sock` is attributed to, and what is known of the socket.
#[inline(always)]
pub(crate) fn key(
    sock: Sock<Typed>,
    local: u16,
    kind: RetransmitType,
) -> Result<(RetransmitKey, Known), Loss> {
    let mut known = owner::of(sock, local)?;
    match kind {
        RetransmitType::Syn => known.role = Role::Client,
        RetransmitType::SynAck => known.role = Role::Server,
        _ => {}
    }
    let port = match known.role {
        Role::Server => local,
        Role::Client => {
            let remote = sock.remote_port()?;
            if u32::from(remote) >= setting!(ephemeral_low) {
                0
            } else {
                remote
            }
        }
    };
    let key = RetransmitKey {
        owner: known.owner.key(),
        port,
        role: known.role as u8,
        kind: kind as u8,
        reserved: 0,
    };
    Ok((key, known))
}

/// Adds to the counts of `key` on this CPU, and to the burst of `now` in its namespace.
#[inline(always)]
pub(crate) fn add(key: RetransmitKey, more: RetransmitCounts, now: u64) -> Result<(), Loss> {
    let counted = count(key, more);
    if more.segments == 0 {
        return counted;
    }
    let binned = bursts::add(
        BurstSignal::Retransmit,
        key.owner.netns.into(),
        more.segments,
        now,
    );
    counted.and(binned.map(|_| ()))
}

#[inline(always)]
fn count(key: RetransmitKey, more: RetransmitCounts) -> Result<(), Loss> {
    if let Some(counts) = RETRANSMITS.get_ptr_mut(key) {
        raise(counts, more);
        return Ok(());
    }
    if RETRANSMITS.insert(key, more, BPF_NOEXIST.into()).is_ok() {
        return Ok(());
    }
    // Another CPU has made the entry meanwhile, or the map is full.
    let counts = RETRANSMITS.get_ptr_mut(key).ok_or(Loss::MapFull)?;
    raise(counts, more);
    Ok(())
}

/// Adds to this CPU's counts in an entry.
#[inline(always)]
fn raise(counts: *mut RetransmitCounts, more: RetransmitCounts) {
    // SAFETY: a live element of a per-CPU map, as the callers have just got it. A softirq may come in
    // the middle of what is counted in a system call.
    unsafe {
        if more.segments != 0 {
            add_shared(&raw mut (*counts).segments, more.segments);
        }
        if more.failures != 0 {
            add_shared(&raw mut (*counts).failures, more.failures);
        }
        if more.syn_segments != 0 {
            add_shared(&raw mut (*counts).syn_segments, more.syn_segments);
        }
    }
}
