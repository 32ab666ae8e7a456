//! Accounting of retransmitted segments: which socket, how many, to which key.
//!
//! `total_retrans` of the socket is what counts: an event tells why, the difference since the last
//! look tells how many. So nothing is lost when an event is (a late failure on kernels up to 6.12,
//! which fire no event for it; a softirq that the kernel ran no program in): the next event of the
//! socket, or its end, finds the difference, as [`RetransmitType::Other`].

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use netobs_common::{
    burst::BurstSignal,
    connection::Connection,
    ledger::{RetransmitCounts, RetransmitKey, RetransmitType, Role, SocketRetransmits},
    probe::Loss,
};

use crate::{
    bursts,
    emit::now,
    kread::{Probed, Sock, TcpSock, Typed},
    maps::{BASELINED, RETRANSMITS, SOCKETS, add_shared, setting},
    owner::{self, Known},
};

/// Elements of [`BASELINED`]: what the agent says, and what the kernel side does.
const SEEN: u32 = 0;
const NO_ROOM: u32 = 1;

/// Whether every socket that existed at the agent's start has been seen.
#[inline(always)]
pub(crate) fn baselined() -> bool {
    BASELINED.get(SEEN).is_some_and(|flag| *flag != 0)
}

/// Whether no segment was counted yet of a socket that is not known: it is younger than the agent, by what
/// is known of its connection (`begun`) or because all older ones are, and there was room for each so far.
#[inline(always)]
fn is_new(begun: bool) -> bool {
    (begun || baselined()) && BASELINED.get(NO_ROOM).is_some_and(|flag| *flag == 0)
}

/// Segments that `RetransSegs` has risen by for this socket since the last look; `seen` of them
/// are the event's own, which is all that is known of a socket older than the agent. `begun`: its
/// connection was seen to begin.
#[inline(always)]
pub(crate) fn account(tcp: TcpSock, seen: u32, begun: bool) -> Result<u32, Loss> {
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
    Ok(if is_new(begun) { total } else { seen })
}

/// A socket could not be remembered, and is counted by its events. When it is met again, there may be
/// room: its total would be credited a second time. So from now on sockets that are not known are of
/// unknown age. What no event tells of such a one stays unattributed.
#[inline(always)]
fn unfollowed() {
    if let Some(flag) = BASELINED.get_ptr_mut(NO_ROOM) {
        // SAFETY: a live element of the map. Every program that writes it writes the same.
        unsafe { flag.write(1) };
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
    // that the map is full.
    match SOCKETS.insert(sock.address(), now, BPF_NOEXIST.into()) {
        Err(errno) if errno != -17 => {
            // EEXIST
            unfollowed();
            Err(Loss::MapFull)
        }
        _ => Ok(()),
    }
}

/// Attributes what no event told of, at the end of the socket's life or use, or (`syn`) of its
/// handshake, when every segment so far was a SYN.
#[inline(never)] // a stack of its own
pub(crate) fn settle(tcp: TcpSock, syn: bool) -> Result<(), Loss> {
    let total = tcp.total_retrans()?;
    if total == 0 {
        return Ok(());
    }
    let (key, known) = key(tcp.sock(), tcp.local_port()?, RetransmitType::Other)?;
    let begun = known.begun_ns != 0;
    if !is_new(begun) && SOCKETS.get_ptr(tcp.sock().address()).is_none() {
        return Ok(());
    }
    let segments = u64::from(account(tcp, 0, begun)?);
    if segments == 0 {
        return Ok(());
    }
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

/// The same for a socket that is gone without a program having been told. `is_whole`: what it has left in
/// memory is still there.
#[inline(never)] // a stack of its own
pub(crate) fn settle_gone(
    sock: Sock<Probed>,
    connection: &Connection,
    is_whole: bool,
) -> Result<(), Loss> {
    let accounted = match SOCKETS.get_ptr(sock.address()) {
        // SAFETY: a live map element.
        Some(entry) => unsafe { ((*entry).peer == connection.peer).then_some((*entry).accounted) },
        None => is_new(connection.begun_ns != 0).then_some(0),
    };
    let _ = SOCKETS.remove(sock.address());
    let Some(accounted) = accounted.filter(|_| is_whole) else {
        return Ok(());
    };
    let total = sock.sent_again()?;
    if total <= accounted {
        return Ok(());
    }
    let segments = u64::from(total - accounted);
    let is_server = connection.role == Role::Server as u8;
    #[allow(clippy::cast_possible_truncation, reason = "the upper half is a port")]
    let remote = (connection.peer >> 32) as u16;
    let port = if is_server {
        sock.own_port()?
    } else if u32::from(remote) >= setting!(ephemeral_low) {
        0
    } else {
        remote
    };
    let were_syns = !is_server && connection.begun_ns != 0 && connection.established_ns == 0;
    // Nobody knows when it was: no burst of now.
    count(
        RetransmitKey {
            owner: connection.owner.key(),
            port,
            role: connection.role,
            kind: RetransmitType::Other as u8,
            reserved: 0,
        },
        RetransmitCounts {
            segments,
            failures: 0,
            syn_segments: if were_syns { segments } else { 0 },
        },
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
