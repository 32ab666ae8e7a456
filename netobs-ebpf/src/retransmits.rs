//! Accounting of retransmitted segments: which socket, how many, to which key.
//!
//! `total_retrans` of the socket is what counts: an event tells why, the difference since the last
//! look tells how many. So nothing is lost when an event is (a late failure on kernels up to 6.12,
//! which fire no event for it; a softirq that the kernel ran no program in): the next event of the
//! socket, or its end, finds the difference, as [`RetransmitType::Other`].

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use netobs_common::{
    ledger::{
        RetransmitCounts, RetransmitKey, RetransmitType, Role, ServerPort, SocketRetransmits,
    },
    probe::Loss,
};

use crate::{
    kread::{Sock, TcpSock, Typed},
    maps::{BASELINED, RETRANSMITS, SERVER_PORTS, SOCKETS, setting},
};

/// Whether every socket that existed at the agent's start has been seen.
#[inline(always)]
fn baselined() -> bool {
    BASELINED.get(0).is_some_and(|flag| *flag != 0)
}

/// The half of [`ports`] that the stack clears before it says `TCP_CLOSE` (`inet_put_port`), unless the
/// user had bound it: from then on the socket's entry has it.
const LOCAL_PORT: u32 = 0xffff;

/// Remote and local port as one word: tells a reused address from the socket that had it before.
#[inline(always)]
fn ports(sock: Sock<Typed>) -> Result<u32, Loss> {
    Ok(u32::from(sock.remote_port()?) << 16 | u32::from(sock.local_port()?))
}

/// Segments that `RetransSegs` has risen by for this socket since the last look; `seen` of them
/// are the event's own, which is all that is known of a socket older than the agent.
#[inline(always)]
pub(crate) fn account(tcp: TcpSock, seen: u32) -> Result<u32, Loss> {
    let total = tcp.total_retrans()?;
    let sock = tcp.sock();
    let mut now = SocketRetransmits {
        ports: ports(sock)?,
        accounted: total,
    };
    if let Some(entry) = SOCKETS.get_ptr_mut(sock.address()) {
        // SAFETY: a live map element. The socket is locked or owned by this softirq wherever
        // segments are retransmitted, so no other CPU writes the entry.
        let before = unsafe { *entry };
        if now.ports & LOCAL_PORT == 0 {
            now.ports |= before.ports & LOCAL_PORT;
        }
        // SAFETY: as above.
        unsafe { *entry = now };
        let same = before.ports == now.ports && before.accounted <= total;
        return Ok(if same {
            total - before.accounted
        } else {
            total
        });
    }
    SOCKETS
        .insert(sock.address(), now, BPF_ANY.into())
        .map_err(|_| Loss::MapFull)?;
    Ok(if baselined() { total } else { seen })
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
        ports: ports(sock)?,
        accounted: total,
    };
    // An event may have been there first: its entry is as good, and the error tells just that, or
    // that the map is full, in which case the flag that says all were seen must not be set.
    match SOCKETS.insert(sock.address(), now, BPF_NOEXIST.into()) {
        Err(errno) if errno != -17 => Err(Loss::MapFull), // EEXIST
        _ => Ok(()),
    }
}

/// Attributes what no event told of, at the end of the socket's life or use.
#[inline(always)]
pub(crate) fn settle(tcp: TcpSock) -> Result<(), Loss> {
    let total = tcp.total_retrans()?;
    if total == 0 || (!baselined() && SOCKETS.get_ptr(tcp.sock().address()).is_none()) {
        return Ok(());
    }
    let segments = account(tcp, 0)?;
    if segments == 0 {
        return Ok(());
    }
    let kind = RetransmitType::Other;
    let (key, _) = key(tcp.sock(), kind)?;
    add(
        key,
        RetransmitCounts {
            segments: segments.into(),
            ..RetransmitCounts::default()
        },
    )
}

/// Forgets a socket.
#[inline(always)]
pub(crate) fn forget(sock: Sock<Typed>) {
    // Most sockets never retransmitted: that there is no entry is the usual case.
    let _ = SOCKETS.remove(sock.address());
}

/// What a retransmission of `sock` is attributed to.
#[inline(always)]
pub(crate) fn key(sock: Sock<Typed>, kind: RetransmitType) -> Result<(RetransmitKey, Role), Loss> {
    let netns = sock.netns()?;
    let mut local = sock.local_port()?;
    if local == 0
        && let Some(entry) = SOCKETS.get_ptr(sock.address())
    {
        // SAFETY: a live map element.
        local = unsafe { (*entry).ports & LOCAL_PORT } as u16;
    }
    let server = match kind {
        RetransmitType::Syn => false,
        RetransmitType::SynAck => true,
        _ => SERVER_PORTS
            .get_ptr(ServerPort {
                netns,
                port: local.into(),
            })
            .is_some(),
    };
    let (role, port) = if server {
        (Role::Server, local)
    } else {
        let remote = sock.remote_port()?;
        (
            Role::Client,
            if u32::from(remote) >= setting!(ephemeral_low) {
                0
            } else {
                remote
            },
        )
    };
    Ok((
        RetransmitKey {
            netns,
            port,
            role: role as u8,
            kind: kind as u8,
        },
        role,
    ))
}

/// Adds to the counts of `key` on this CPU.
#[inline(always)]
pub(crate) fn add(key: RetransmitKey, more: RetransmitCounts) -> Result<(), Loss> {
    if let Some(counts) = RETRANSMITS.get_ptr_mut(key) {
        // SAFETY: a live element of a per-CPU map.
        unsafe {
            (*counts).segments += more.segments;
            (*counts).failures += more.failures;
            (*counts).syn_segments += more.syn_segments;
        }
        return Ok(());
    }
    match RETRANSMITS.insert(key, more, BPF_NOEXIST.into()) {
        Ok(()) => Ok(()),
        // Another CPU made the entry meanwhile: add to this CPU's part of it.
        Err(_) => match RETRANSMITS.get_ptr_mut(key) {
            Some(counts) => {
                // SAFETY: as above.
                unsafe {
                    (*counts).segments += more.segments;
                    (*counts).failures += more.failures;
                    (*counts).syn_segments += more.syn_segments;
                }
                Ok(())
            }
            None => Err(Loss::MapFull),
        },
    }
}
