//! New connections that an old one's TIME_WAIT socket refuses.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::{
    listener::{Listener, PATIENCE},
    raw::{Flags, RawPeer, Segment},
    witness::{Counters, wait_until},
};

/// The port that the peer uses again.
const PORT: u16 = 4000;
/// Its clock during the first connection, and afterwards.
const CLOCK: u32 = 5000;
const OLDER_CLOCK: u32 = 4000;

/// A peer whose clock goes back: connects with time stamps, lets the listener's host close first, so
/// that it keeps the TIME_WAIT, and sends `n` SYNs from the same port with a time stamp older than the
/// last (RFC 7323, PAWS). All are refused, and the listener knows nothing of them.
///
/// The listener must be reachable at the peer's host address.
///
/// # Errors
/// When the connection does not come about and end so, or the kernel does not refuse `n` within ten
/// seconds.
pub fn syns_before_time_wait(peer: &RawPeer, listener: &Listener, n: u64) -> Result<()> {
    let local = SocketAddr::new(peer.address(2), PORT);
    let remote = SocketAddr::new(peer.host(), listener.port());
    let send = |sequence, acknowledgement, flags, clock, echo| {
        peer.send(&Segment {
            source: local,
            destination: remote,
            sequence,
            acknowledgement,
            flags,
            window: 60_000,
            options: Segment::timestamps(clock, echo),
            payload: Vec::new(),
        })
    };
    let receive = |flags: Flags| {
        let wanted = |it: &Segment| it.destination == local && it.flags.has(flags);
        peer.receive(PATIENCE, wanted)
    };
    send(1000, 0, Flags::SYN, CLOCK, 0)?;
    let answer = receive(Flags::SYN.and(Flags::ACK))?;
    let next = answer.sequence.wrapping_add(1);
    send(1001, next, Flags::ACK, CLOCK + 1, clock_of(&answer)?)?;
    drop(listener.accept()?);
    let fin = receive(Flags::FIN)?;
    let next = fin.sequence.wrapping_add(1);
    let last = Flags::FIN.and(Flags::ACK);
    send(1001, next, last, CLOCK + 2, clock_of(&fin)?)?;
    receive(Flags::ACK)?;
    let before = Counters::read_in(listener.ns())?;
    (0..n).try_for_each(|_| send(900_000, 0, Flags::SYN, OLDER_CLOCK, 0))?;
    wait_until(PATIENCE, &format!("{n} refused SYNs"), || {
        let moved = Counters::read_in(listener.ns())?.since(&before);
        // Counted on its own from 6.13 on.
        let refused = moved.find("TcpExt", "PAWSTimewait");
        Ok(refused.unwrap_or_else(|| moved.get("TcpExt", "PAWSEstab")) == n)
    })
}

/// The value of a segment's time stamp option (RFC 7323, 3.2).
fn clock_of(segment: &Segment) -> Result<u32> {
    let options = &segment.options;
    let at = options.windows(2).position(|pair| pair == [8, 10]);
    let value = at.and_then(|at| options.get(at + 2..at + 6));
    let value = value.context("a segment without a time stamp")?;
    Ok(u32::from_be_bytes(value.try_into()?))
}
