//! Bulk data over a link that loses some of it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    link::Link,
    listener::{Listener, PATIENCE, information, total_retransmits},
    raw::Family,
    rule::{Hook, Rule, Select},
    witness::wait_until,
};

/// Longest silence of the connection: some retransmission timeouts in a row.
const SILENCE: Duration = Duration::from_secs(20);
/// Bytes of one write.
const CHUNK: usize = 64 * 1024;
/// Most bytes of one transfer.
const LIMIT: u64 = 1 << 30;

/// What a [`lossy_transfer`] was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Sender's end of the connection.
    pub local: SocketAddr,
    /// Receiver's end of the connection.
    pub remote: SocketAddr,
    /// Data bytes that arrived.
    pub bytes: u64,
    /// Packets that were dropped; each may be several joined segments.
    pub dropped: u64,
    /// Segments that the sender sent again, by `TCP_INFO` of its socket.
    pub retransmitted: u32,
}

/// Sends `bytes` from end `a` of a link to end `b` over one connection, dropping the first of every
/// `every` packets at the receiver. When it returns all data has arrived and was acknowledged.
///
/// # Errors
/// When `every` is below 2, `bytes` above 1 GiB, or the connection is silent for twenty seconds.
pub fn lossy_transfer(link: &Link, family: Family, bytes: u64, every: u32) -> Result<Transfer> {
    ensure!(
        every >= 2,
        "a connection that loses every packet transfers nothing"
    );
    ensure!(bytes <= LIMIT, "{bytes} bytes are too many for a test");
    let listener = Listener::builder(link.b.address(family, 0)).open(link.b.ns())?;
    let remote = listener.address();
    let mut sender = link
        .a
        .ns()
        .run(|| TcpStream::connect_timeout(&remote, PATIENCE))
        .context("connect over the link")?;
    let receiver = listener.accept()?;
    sender
        .set_write_timeout(Some(SILENCE))
        .context("limit the sender's silence")?;
    receiver
        .set_read_timeout(Some(SILENCE))
        .context("limit the receiver's silence")?;
    let loss = Rule::drop_each(link.b.ns(), Hook::Input, Select::To(remote.port()), every)?;
    let reader = std::thread::spawn(move || read(receiver, bytes));
    write(&mut sender, bytes)?;
    let Ok(received) = reader.join() else {
        bail!("the receiver panicked")
    };
    let _receiver = received?;
    wait_until(SILENCE, "the acknowledgement of all data", || {
        Ok(information(&sender)?.tcpi_unacked == 0)
    })?;
    let dropped = loss.remove()?;
    let local = sender.local_addr().context("read the sender's address")?;
    let retransmitted = total_retransmits(&sender)?;
    Ok(Transfer {
        local,
        remote,
        bytes,
        dropped,
        retransmitted,
    })
}

fn write(sender: &mut TcpStream, bytes: u64) -> Result<()> {
    let chunk = [0x5a; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let part = chunk.get(..length).context("an oversized chunk")?;
        let written = sender.write(part).context("write")?;
        left = left.saturating_sub(u64::try_from(written)?);
    }
    Ok(())
}

/// Reads exactly `bytes` and returns the socket, so that its end stays open.
fn read(mut receiver: TcpStream, bytes: u64) -> Result<TcpStream> {
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let read = receiver.read(&mut chunk).context("read")?;
        ensure!(read > 0, "the sender closed with {left} bytes to go");
        left = left.saturating_sub(u64::try_from(read)?);
    }
    Ok(receiver)
}
