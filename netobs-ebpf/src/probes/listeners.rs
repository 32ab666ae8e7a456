//! What the probes that open, read and close listeners share.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::bpf_ktime_get_ns,
};
use netobs_common::{
    connection::ListenerKey,
    event::Endpoints,
    ledger::{FILL_BOUNDS_PERCENT, ListenCounts, Listener, QueueFills, ServerPort, SocketReading},
    owner::Owner,
    probe::Loss,
};

use crate::{
    kread::{Access, Probed, Sock},
    maps::{LISTENERS, SERVER_PORTS, add_shared},
    owner,
};

/// Takes a listening socket into the maps; one that is known already keeps its counts. `asked` is
/// what goes into `Listener::asked`.
#[inline(always)]
pub(crate) fn open<A: Access>(
    sock: Sock<A>,
    owner: Owner,
    asked: u32,
    ends: &Endpoints,
) -> Result<(), Loss> {
    let inode = sock.inode()?;
    let netns = owner.netns;
    let port = ServerPort {
        netns,
        port: ends.local_port.into(),
    };
    let remembered = SERVER_PORTS.insert(port, 0, BPF_ANY.into());
    if let Some(known) = LISTENERS.get_ptr_mut(sock.address()) {
        // SAFETY: a live map element; a socket's own listen() and discovery may race, and both
        // write the same.
        let known = unsafe { &mut *known };
        if known.inode == inode && known.owner.net == owner.net && known.owner.netns == netns {
            // listen() again on the same socket, or discovery of one whose listen() was seen.
            // `sk_drops` and the counts go on.
            known.local_port = ends.local_port;
            known.local_address = ends.local_address;
            if owner.pid != 0 {
                known.asked = asked;
                known.granted = sock.max_ack_backlog()?;
            }
            return Ok(());
        }
        // Else a socket whose end was not seen had this address: its counts end here.
    }
    let flags = if owner.pid == 0 { BPF_NOEXIST } else { BPF_ANY };
    // Made in place: a `Listener` leaves the stack no room for the rest.
    LISTENERS
        .insert(sock.address(), &NOTHING, flags.into())
        .and(remembered)
        .map_err(|_| Loss::MapFull)?;
    let Some(listener) = LISTENERS.get_ptr_mut(sock.address()) else {
        return Err(Loss::MapFull);
    };
    // SAFETY: a live map element, of which nobody else has any use before `opened_ns` is set.
    let listener = unsafe { &mut *listener };
    listener.inode = inode;
    listener.base_drops = sock.drops()?;
    listener.granted = sock.max_ack_backlog()?;
    listener.owner = owner;
    listener.local_port = ends.local_port;
    listener.family = ends.family;
    listener.asked = asked;
    listener.local_address = ends.local_address;
    // SAFETY: the helper has no preconditions.
    listener.opened_ns = unsafe { bpf_ktime_get_ns() };
    owner::listens(key(listener), owner, sock.address())
}

/// Read-only data: too big for the stack.
static NOTHING: Listener = Listener {
    opened_ns: 0,
    inode: 0,
    counts: ListenCounts {
        drops: [[0; 3]; 3],
        overflows: [0; 3],
    },
    cookies: [0; 3],
    fills: QueueFills {
        buckets: [0; 7],
        sum_millionths: 0,
    },
    enqueued: 0,
    accepted: 0,
    discards: 0,
    ack_drops: 0,
    cookie_discards: 0,
    base_drops: 0,
    peak: 0,
    owner: Owner {
        cgroup: 0,
        net: 0,
        netns: 0,
        pid: 0,
        comm: [0; 16],
    },
    local_port: 0,
    family: 0,
    asked: 0,
    local_address: [0; 16],
    granted: 0,
    reserved: 0,
};

/// Where a listener listens.
#[inline(always)]
pub(crate) fn key(listener: &Listener) -> ListenerKey {
    ListenerKey {
        net: listener.owner.net,
        netns: listener.owner.netns,
        port: listener.local_port,
        family: listener.family,
        address: listener.local_address,
    }
}

/// Reads a listener's socket.
#[inline(always)]
pub(crate) fn read<A: Access>(sock: Sock<A>) -> Result<SocketReading, Loss> {
    let [ack_backlog, max_ack_backlog] = sock.accept_queue()?;
    Ok(SocketReading {
        sk: sock.address(),
        // SAFETY: the helper has no preconditions.
        ktime_ns: unsafe { bpf_ktime_get_ns() },
        drops: sock.drops()?,
        ack_backlog,
        max_ack_backlog,
        syn_queue: sock.syn_queue()?,
    })
}

/// A connection has entered a listener's queue, which is now this long.
///
/// # Safety
///
/// `listener` must be a live map element.
#[inline(always)]
pub(crate) unsafe fn entered(listener: *mut Listener, length: u32, limit: u32) {
    let limit = u64::from(limit.max(1));
    // SAFETY: the caller's contract, here and below. Two CPUs may raise the peak at once: the lesser
    // of two lengths that differ by one may win.
    unsafe {
        if length > (*listener).peak {
            (*listener).peak = length;
        }
        let fills = &raw mut (*listener).fills;
        let millionths = u64::from(length) * 1_000_000 / limit;
        add_shared(&raw mut (*fills).sum_millionths, millionths);
        let percents = u64::from(length) * 100;
        macro_rules! bucket {
            ($($index:literal)+) => {
                $(if percents <= FILL_BOUNDS_PERCENT[$index] as u64 * limit {
                    add_shared(&raw mut (*fills).buckets[$index], 1);
                    return;
                })+
            };
        }
        bucket!(0 1 2 3 4 5);
        add_shared(&raw mut (*fills).buckets[6], 1);
    }
}

const _: () = assert!(FILL_BOUNDS_PERCENT.len() == 6); // the unrolled buckets

/// As [`entered`], where nothing else sees connections enter the queue: by the end of the handshake,
/// which follows at once. `sk` is the only socket that listens at `at`.
#[inline(never)] // a stack of its own
pub(crate) fn sample(at: &ListenerKey, sk: u64) -> Result<(), Loss> {
    let Some(listener) = LISTENERS.get_ptr_mut(sk) else {
        return Ok(());
    };
    // SAFETY: a live map element. A socket's memory may have become another one's.
    let (seen, same) = unsafe {
        let netns = (*listener).owner.netns;
        let same = netns == at.netns && (*listener).local_port == at.port;
        ((*listener).enqueued > 0, same)
    };
    if seen || !same {
        return Ok(());
    }
    // SAFETY: `Probed` takes any address; listeners are freed by RCU, under whose read lock this runs.
    let sock: Sock<Probed> = unsafe { Sock::new(sk as *const u8) };
    let [length, limit] = sock.accept_queue()?;
    // SAFETY: a live map element.
    unsafe { entered(listener, length, limit) };
    Ok(())
}
