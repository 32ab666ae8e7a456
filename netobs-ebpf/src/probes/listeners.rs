//! What the probes that open, read and close listeners share.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::bpf_ktime_get_ns,
};
use netobs_common::{
    connection::ListenerKey,
    event::Endpoints,
    ledger::{ListenCounts, Listener, ServerPort, SocketReading},
    owner::Owner,
    probe::Loss,
};

use crate::{
    kread::{Access, Sock},
    maps::{LISTENERS, SERVER_PORTS},
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
    let listener = Listener {
        // SAFETY: the helper has no preconditions.
        opened_ns: unsafe { bpf_ktime_get_ns() },
        inode,
        counts: ListenCounts::default(),
        enqueued: 0,
        accepted: 0,
        discards: 0,
        ack_drops: 0,
        cookie_discards: 0,
        base_drops: sock.drops()?,
        peak: 0,
        owner,
        local_port: ends.local_port,
        family: ends.family,
        asked,
        local_address: ends.local_address,
        granted: sock.max_ack_backlog()?,
        reserved: 0,
    };
    let flags = if owner.pid == 0 { BPF_NOEXIST } else { BPF_ANY };
    LISTENERS
        .insert(sock.address(), listener, flags.into())
        .and(remembered)
        .map_err(|_| Loss::MapFull)?;
    owner::listens(key(&listener), owner)
}

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
    Ok(SocketReading {
        sk: sock.address(),
        // SAFETY: the helper has no preconditions.
        ktime_ns: unsafe { bpf_ktime_get_ns() },
        drops: sock.drops()?,
        ack_backlog: sock.ack_backlog()?,
        max_ack_backlog: sock.max_ack_backlog()?,
        syn_queue: sock.syn_queue()?,
    })
}
