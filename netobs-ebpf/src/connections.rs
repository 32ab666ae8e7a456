//! What is remembered of each connection, and what is counted of all: outgoing handshakes and waits
//! in accept queues.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use netobs_common::{
    connection::{
        AcceptCounts, ConnectCounts, ConnectFailure, ConnectKey, Connection, LATENCY_BOUNDS_NS,
        Latencies, ListenerKey,
    },
    event::{Accept, CONNECTED, Connect, EventKind},
    ledger::Role,
    probe::{Loss, Program},
};

use crate::{
    emit::{emit, is_wanted, now},
    kread::{Access, Net, Sock, TcpSock, Typed},
    maps::{ACCEPTS, CONNECTIONS, CONNECTS, add_shared, setting},
    owner,
    probes::listeners,
    retransmits,
};

/// errno values (include/uapi/asm-generic/errno.h), the same on x86-64 and arm64.
mod errno {
    pub(super) const EADDRNOTAVAIL: u32 = 99;
    pub(super) const ENETDOWN: u32 = 100;
    pub(super) const ENETUNREACH: u32 = 101;
    pub(super) const ECONNRESET: u32 = 104;
    pub(super) const ETIMEDOUT: u32 = 110;
    pub(super) const ECONNREFUSED: u32 = 111;
    pub(super) const EHOSTDOWN: u32 = 112;
    pub(super) const EHOSTUNREACH: u32 = 113;
}

/// `connect()`, in the caller's context.
#[inline(never)] // a stack of its own
pub(crate) fn begin(sock: Sock<Typed>) -> Result<(), Loss> {
    let owner = owner::current(sock.net()?)?;
    let connection = Connection {
        owner,
        peer: sock.peer()?,
        begun_ns: now(),
        role: Role::Client as u8,
        ..Connection::default()
    };
    CONNECTIONS
        .insert(sock.address(), connection, BPF_ANY.into())
        .map_err(|_| Loss::MapFull)?;
    let counts = connects(connect_key(sock, &connection)?)?;
    // SAFETY: a live element of a per-CPU map.
    unsafe { add_shared(&raw mut (*counts).begun, 1) };
    Ok(())
}

/// The end of an outgoing handshake, one way or the other.
#[inline(never)] // a stack of its own
pub(crate) fn end(tcp: TcpSock, established: bool) -> Result<(), Loss> {
    let sock = tcp.sock();
    let Some(connection) = CONNECTIONS.get_ptr_mut(sock.address()) else {
        return Ok(()); // it began before the agent
    };
    // SAFETY: a live map element; the socket is locked or owned by this softirq.
    let connection = unsafe { &mut *connection };
    if connection.begun_ns == 0 || connection.established_ns != 0 || connection.failed != 0 {
        return Ok(());
    }
    let now = now();
    let latency_ns = now.wrapping_sub(connection.begun_ns);
    let key = connect_key(sock, connection)?;
    let counts = connects(key)?;
    let (err, failure) = if established {
        connection.established_ns = now;
        // SAFETY: a live element of a per-CPU map.
        unsafe { observe(&raw mut (*counts).latency, latency_ns) };
        (0, CONNECTED)
    } else {
        connection.failed = 1;
        let err = sock.error()?;
        let failure = why(tcp, err)?;
        // SAFETY: as above; the index is below the array's length.
        unsafe {
            let failures = (&raw mut (*counts).failures).cast::<u64>();
            add_shared(failures.add((failure as usize) & 7), 1);
        }
        (err, failure as u8)
    };
    let syn_retransmits = tcp.total_retrans()?;
    if failure != CONNECTED || syn_retransmits > 0 || is_wanted(EventKind::Connect) {
        emit(
            Program::InetSockSetState,
            connection.owner.netns,
            now,
            |event: &mut Connect| {
                event.sk = sock.address();
                sock.ends(&mut event.ends)?;
                event.ends.local_port = tcp.local_port()?;
                event.owner = connection.owner;
                event.latency_ns = latency_ns;
                event.syn_retransmits = syn_retransmits;
                event.err = err;
                event.failure = failure;
                Ok(())
            },
        )?;
    }
    Ok(())
}

const _: () = assert!(ConnectFailure::COUNT == 8); // the mask above

/// Why a handshake failed, by `sk_err`, which the stack sets before the state changes; without one
/// the process has closed the socket itself, or `connect()` could not even send.
#[inline(always)]
fn why(tcp: TcpSock, err: u32) -> Result<ConnectFailure, Loss> {
    Ok(match err {
        0 | errno::EADDRNOTAVAIL => {
            if tcp.segments_sent()? == 0 {
                ConnectFailure::NotSent
            } else {
                ConnectFailure::Abandoned
            }
        }
        errno::ECONNREFUSED => ConnectFailure::Refused,
        errno::ECONNRESET => ConnectFailure::Reset,
        errno::ETIMEDOUT => ConnectFailure::TimedOut,
        errno::EHOSTUNREACH | errno::EHOSTDOWN => ConnectFailure::HostUnreachable,
        errno::ENETUNREACH | errno::ENETDOWN => ConnectFailure::NetUnreachable,
        _ => ConnectFailure::Other,
    })
}

/// That nobody is known to listen where a connection came in: no loss as long as older listeners
/// are still being looked for.
#[inline(always)]
fn unknown_listener() -> Result<(), Loss> {
    if retransmits::baselined() {
        Err(Loss::UnknownListener)
    } else {
        Ok(())
    }
}

/// The end of an incoming handshake: the connection is in the accept queue, its owner is who
/// listens.
#[inline(never)] // a stack of its own
pub(crate) fn enqueue(sock: Sock<Typed>) -> Result<(), Loss> {
    let Some((key, listening)) = owner::listening(sock.listener_key(sock.net()?)?) else {
        return unknown_listener();
    };
    let now = now();
    let connection = Connection {
        // SAFETY: a live map element.
        owner: unsafe { (*listening).owner },
        peer: sock.peer()?,
        begun_ns: now,
        established_ns: now,
        role: Role::Server as u8,
        wildcard: u8::from(key.address == [0; 16]),
        local_port: key.port,
        family: key.family,
        ..Connection::default()
    };
    if CONNECTIONS
        .insert(sock.address(), connection, BPF_NOEXIST.into())
        .is_err()
        && !replace(&connection, sock.address())?
    {
        return Ok(());
    }
    let counts = accepts(key)?;
    // SAFETY: live map elements.
    unsafe {
        add_shared(&raw mut (*counts).established, 1);
        if (*listening).sockets == 1 {
            listeners::sample(&key, (*listening).sk)?;
        }
    }
    Ok(())
}

/// An incoming connection at an address that another one, whose end was not seen, had before; or the map
/// is full. `false`: it is the same one, which has begun as an outgoing connection, both ends having
/// connected to each other at once (RFC 9293, 3.5).
#[inline(never)] // a stack of its own
fn replace(connection: &Connection, sk: u64) -> Result<bool, Loss> {
    if let Some(known) = CONNECTIONS.get_ptr(sk) {
        // SAFETY: a live map element.
        let known = unsafe { &*known };
        if known.role == Role::Client as u8 && known.peer == connection.peer {
            return Ok(false);
        }
    }
    CONNECTIONS
        .insert(sk, connection, BPF_ANY.into())
        .map(|()| true)
        .map_err(|_| Loss::MapFull)
}

/// Whether a connection is remembered by this address.
#[inline(always)]
pub(crate) fn is_known<A: Access>(sock: Sock<A>) -> bool {
    CONNECTIONS.get_ptr(sock.address()).is_some()
}

/// `accept()` has taken the connection, in the caller's context.
#[inline(always)]
pub(crate) fn accept<A: Access>(program: Program, sock: Sock<A>) -> Result<(), Loss> {
    let Some(connection) = CONNECTIONS.get_ptr_mut(sock.address()) else {
        // Not remembered, or a Fast Open child whose handshake is not complete.
        return accept_untimed(sock);
    };
    // SAFETY: a live map element; a connection is accepted once.
    let connection = unsafe { &mut *connection };
    if connection.role != Role::Server as u8 || connection.accepted_ns != 0 {
        return Ok(());
    }
    let now = now();
    connection.accepted_ns = now;
    let taken = take_over(connection);
    let counted = if connection.established_ns == 0 {
        // It was in the queue before the agent began: nobody knows how long.
        accept_untimed(sock)
    } else {
        accept_timed(program, sock, connection, now)
    };
    taken.and(counted)
}

/// The connection is the caller's from now on.
#[inline(never)] // a stack of its own
fn take_over(connection: &mut Connection) -> Result<(), Loss> {
    connection.owner = owner::current(Net::of(&connection.owner))?;
    Ok(())
}

/// Counts a connection that was accepted, and how long it waited.
#[inline(never)] // a stack of its own
fn accept_timed<A: Access>(
    program: Program,
    sock: Sock<A>,
    connection: &Connection,
    now: u64,
) -> Result<(), Loss> {
    let latency_ns = now.wrapping_sub(connection.established_ns);
    let net = Net::of(&connection.owner);
    let key = if connection.wildcard != 0 && connection.family != 0 {
        // Nothing to read.
        ListenerKey {
            net: net.identity,
            netns: net.number,
            port: connection.local_port,
            family: connection.family,
            address: [0; 16],
        }
    } else {
        let mut key = sock.listener_key(net)?;
        if connection.wildcard != 0 {
            key.address = [0; 16];
        }
        key
    };
    let counts = accepts(key)?;
    // SAFETY: a live element of a per-CPU map.
    unsafe {
        add_shared(&raw mut (*counts).accepted, 1);
        observe(&raw mut (*counts).latency, latency_ns);
    }
    if latency_ns >= u64::from(setting!(slow_accept_ns)) || is_wanted(EventKind::Accept) {
        emit(
            program,
            connection.owner.netns,
            now,
            |event: &mut Accept| {
                event.sk = sock.address();
                sock.ends(&mut event.ends)?;
                event.owner = connection.owner;
                event.latency_ns = latency_ns;
                Ok(())
            },
        )?;
    }
    Ok(())
}

/// Counts a connection that was accepted after a wait of unknown length.
#[inline(never)] // a stack of its own
fn accept_untimed<A: Access>(sock: Sock<A>) -> Result<(), Loss> {
    let Some((key, _)) = owner::listening(sock.listener_key(sock.net()?)?) else {
        return unknown_listener();
    };
    let counts = accepts(key)?;
    // SAFETY: a live element of a per-CPU map.
    unsafe { add_shared(&raw mut (*counts).accepted, 1) };
    Ok(())
}

/// A SYN for this local end was refused by a TIME_WAIT socket; whoever listens there never saw it.
#[inline(always)]
pub(crate) fn refused_in_time_wait(key: ListenerKey) -> Result<(), Loss> {
    // Where nobody listens any more it is a refused connection that nobody answers.
    let Some((key, _)) = owner::listening(key) else {
        return Ok(());
    };
    let counts = accepts(key)?;
    // SAFETY: a live element of a per-CPU map.
    unsafe { add_shared(&raw mut (*counts).refused_in_time_wait, 1) };
    Ok(())
}

/// Notes the state that a socket is closed from: a RST that is sent then says nothing of it.
#[inline(always)]
pub(crate) fn close(sock: Sock<Typed>, from: u8) {
    if let Some(connection) = CONNECTIONS.get_ptr_mut(sock.address()) {
        // SAFETY: a live map element.
        unsafe { (*connection).closed_from = from };
    }
}

/// The state that a socket was closed from, when that is known.
#[inline(always)]
pub(crate) fn closed_from(sock: Sock<Typed>) -> Option<u8> {
    let connection = CONNECTIONS.get_ptr(sock.address())?;
    // SAFETY: a live map element.
    let from = unsafe { (*connection).closed_from };
    (from != 0).then_some(from)
}

/// Forgets a socket.
#[inline(always)]
pub(crate) fn forget(sock: Sock<Typed>) {
    // That there is no entry is usual: a socket that was never connected.
    let _ = CONNECTIONS.remove(sock.address());
}

#[inline(always)]
fn connect_key(sock: Sock<Typed>, connection: &Connection) -> Result<ConnectKey, Loss> {
    let port = sock.remote_port()?;
    Ok(ConnectKey {
        owner: connection.owner.key(),
        port: if u32::from(port) >= setting!(ephemeral_low) {
            0
        } else {
            port
        },
        reserved: [0; 3],
    })
}

#[inline(always)]
fn connects(key: ConnectKey) -> Result<*mut ConnectCounts, Loss> {
    if let Some(counts) = CONNECTS.get_ptr_mut(key) {
        return Ok(counts);
    }
    // A failure is another CPU's success, or a full map: the look-up tells.
    let _ = CONNECTS.insert(key, EMPTY_CONNECTS, BPF_NOEXIST.into());
    CONNECTS.get_ptr_mut(key).ok_or(Loss::MapFull)
}

#[inline(always)]
fn accepts(key: ListenerKey) -> Result<*mut AcceptCounts, Loss> {
    if let Some(counts) = ACCEPTS.get_ptr_mut(key) {
        return Ok(counts);
    }
    let _ = ACCEPTS.insert(key, EMPTY_ACCEPTS, BPF_NOEXIST.into());
    ACCEPTS.get_ptr_mut(key).ok_or(Loss::MapFull)
}

/// Read-only data: too big for the stack.
static EMPTY_CONNECTS: ConnectCounts = ConnectCounts::NONE;
static EMPTY_ACCEPTS: AcceptCounts = AcceptCounts::NONE;

/// Counts one latency. The element is this CPU's, but a softirq may come in the middle of an addition.
///
/// # Safety
///
/// `latencies` must be in a live map element.
#[inline(always)]
unsafe fn observe(latencies: *mut Latencies, ns: u64) {
    // SAFETY: the caller's contract, here and below.
    unsafe { add_shared(&raw mut (*latencies).sum_ns, ns) };
    macro_rules! bucket {
        ($($index:literal)+) => {
            $(if ns <= LATENCY_BOUNDS_NS[$index] {
                // SAFETY: see above.
                unsafe { add_shared(&raw mut (*latencies).buckets[$index], 1) };
                return;
            })+
        };
    }
    // Unrolled: the verifier sees constant indices and no loop.
    bucket!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    // SAFETY: see above.
    unsafe { add_shared(&raw mut (*latencies).buckets[16], 1) };
}

const _: () = assert!(LATENCY_BOUNDS_NS.len() == 16); // the unrolled buckets
