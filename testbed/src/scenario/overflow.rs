//! Connections that a full accept queue turns away.

use std::{net::SocketAddr, os::fd::OwnedFd};

use anyhow::{Context, Result, ensure};

use super::settled;
use crate::{
    listener::{Listener, PATIENCE, connect_nonblocking},
    netns::Ns,
    raw::{RawClient, RawPeer},
    witness::{Counters, Delta, sockets, wait_counted, wait_until},
};

/// First source port of raw clients: below the range from which the kernel chooses.
const FIRST_PORT: u16 = 10_000;

/// Sends `n` SYNs to a listener whose accept queue is full, from its own namespace:
/// see [`overflow_syns_from`].
///
/// # Errors
/// As [`overflow_syns_from`].
pub fn overflow_syns(listener: &Listener, n: u64) -> Result<Delta> {
    overflow_syns_from(listener.ns(), listener.target(), listener, n)
}

/// Sends `n` SYNs from `clients` to `target`, where `listener` listens with a full accept queue
/// ([`Listener::fill`]): ListenDrops and ListenOverflows of its namespace and its `sk_drops` grow
/// by `n` each. Every client socket is closed right after its SYN, so no SYN is sent twice.
///
/// # Errors
/// When the queue is not full, or the kernel counts anything but `n` within ten seconds.
pub fn overflow_syns_from(
    clients: &Ns,
    target: SocketAddr,
    listener: &Listener,
    n: u64,
) -> Result<Delta> {
    let queued = listener.queued()?;
    ensure!(
        queued == listener.capacity(),
        "the accept queue of {target} holds {queued} of {} connections",
        listener.capacity()
    );
    let before = Counters::read_in(listener.ns())?;
    clients.run(|| (0..n).try_for_each(|_| connect_nonblocking(target).map(drop)))?;
    wait_counted(listener.ns(), &before, "TcpExt", "ListenDrops", n, PATIENCE)?;
    settled(
        listener.ns(),
        &before,
        &[
            ("TcpExt", "ListenDrops", n),
            ("TcpExt", "ListenOverflows", n),
        ],
    )
}

/// What [`final_ack_overflow`] leaves behind: the listener's queues stay as they are until these
/// are used or dropped and the listener accepts.
#[derive(Debug)]
pub struct FinalAcks<'peer> {
    /// The clients that think they are connected; each has an embryonic request.
    pub clients: Vec<RawClient<'peer>>,
    /// The connections that fill the accept queue.
    pub queued: Vec<OwnedFd>,
    /// What the listener's namespace counted for the final ACKs.
    pub counted: Delta,
}

/// Opens `embryos` handshakes with a listener, fills its accept queue, then sends each final ACK
/// `repeats` times. Each is dropped: `embryos * repeats` ListenDrops and ListenOverflows, twice as
/// many `sk_drops`.
///
/// The listener must be reachable at the peer's host address. With `tcp_abort_on_overflow` a
/// request does not survive its first ACK, so `repeats` must be 1 then.
///
/// # Errors
/// When a SYN is not answered, or the kernel counts anything else within ten seconds.
pub fn final_ack_overflow<'peer>(
    peer: &'peer RawPeer,
    listener: &Listener,
    embryos: u16,
    repeats: u16,
) -> Result<FinalAcks<'peer>> {
    let clients = half_open(peer, listener, embryos)?;
    let queued = listener.fill()?;
    let before = Counters::read_in(listener.ns())?;
    for _ in 0..repeats {
        clients.iter().try_for_each(RawClient::ack)?;
    }
    let n = u64::from(embryos) * u64::from(repeats);
    let counted = wait_counted(listener.ns(), &before, "TcpExt", "ListenDrops", n, PATIENCE)?;
    settled(listener.ns(), &before, &[("TcpExt", "ListenOverflows", n)])?;
    Ok(FinalAcks {
        clients,
        queued,
        counted,
    })
}

/// Opens `n` handshakes with a listener and leaves them half open.
pub(super) fn half_open<'peer>(
    peer: &'peer RawPeer,
    listener: &Listener,
    n: u16,
) -> Result<Vec<RawClient<'peer>>> {
    let already = sockets::embryos(listener.ns(), listener.port())?;
    let mut clients = Vec::with_capacity(usize::from(n));
    for index in 0..n {
        let port = FIRST_PORT.checked_add(index).context("too many clients")?;
        let mut client = peer.client(port, listener.port());
        client.half_open(PATIENCE)?;
        clients.push(client);
    }
    let want = already.saturating_add(clients.len());
    wait_until(
        PATIENCE,
        &format!("{n} handshakes in the SYN queue"),
        || Ok(sockets::embryos(listener.ns(), listener.port())? == want),
    )?;
    Ok(clients)
}
