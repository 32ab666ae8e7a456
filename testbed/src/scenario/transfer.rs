//! Bulk data over a link that loses some of it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    link::{End, Link},
    listener::{Listener, PATIENCE, abort, information, total_retransmits},
    netns::Ns,
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
/// `every` packets at the receiver. When it returns all data has arrived and was acknowledged, and
/// the connection is closed.
///
/// # Errors
/// As [`OpenTransfer::start`] and [`OpenTransfer::send`].
pub fn lossy_transfer(link: &Link, family: Family, bytes: u64, every: u32) -> Result<Transfer> {
    let mut open = OpenTransfer::start(link, family)?;
    let dropped = open.send(bytes, every)?;
    Ok(Transfer {
        local: open.local()?,
        remote: open.remote()?,
        bytes,
        dropped,
        retransmitted: open.retransmitted()?,
    })
}

/// A connection over a link whose end `a` sends, step by step.
#[derive(Debug)]
pub struct OpenTransfer {
    sender: TcpStream,
    receiver: TcpStream,
    receiving: Ns,
}

impl OpenTransfer {
    /// Connects from end `a` of a link to end `b`.
    ///
    /// # Errors
    /// When the connection is not made within ten seconds.
    pub fn start(link: &Link, family: Family) -> Result<Self> {
        let (sender, receiver) = connect(&link.a, &link.b, family)?;
        Self::over(sender, receiver, link.b.ns())
    }

    /// Connects from end `b` of a link to end `a`, which sends: the sender's port is one that was
    /// listened on.
    ///
    /// # Errors
    /// As [`OpenTransfer::start`].
    pub fn start_from_server(link: &Link, family: Family) -> Result<Self> {
        let (receiver, sender) = connect(&link.b, &link.a, family)?;
        Self::over(sender, receiver, link.b.ns())
    }

    fn over(sender: TcpStream, receiver: TcpStream, receiving: &Ns) -> Result<Self> {
        let silence = Some(SILENCE);
        sender
            .set_write_timeout(silence)
            .context("limit the sender's silence")?;
        receiver
            .set_read_timeout(silence)
            .context("limit the receiver's silence")?;
        Ok(Self {
            sender,
            receiver,
            receiving: receiving.clone(),
        })
    }

    /// Sends `bytes`, dropping the first of every `every` packets at the receiver, and returns how
    /// many were dropped. All data has arrived and was acknowledged then.
    ///
    /// # Errors
    /// When `every` is below 2, `bytes` above 1 GiB, or the connection is silent for twenty seconds.
    pub fn send(&mut self, bytes: u64, every: u32) -> Result<u64> {
        ensure!(
            every >= 2,
            "a connection that loses every packet transfers nothing"
        );
        ensure!(bytes <= LIMIT, "{bytes} bytes are too many for a test");
        let to = Select::To(self.remote()?.port());
        let loss = Rule::drop_each(&self.receiving, Hook::Input, to, every)?;
        let receiver = self.receiver.try_clone().context("share the receiver")?;
        let reader = std::thread::spawn(move || read(receiver, bytes));
        write(&mut self.sender, bytes)?;
        let Ok(received) = reader.join() else {
            bail!("the receiver panicked")
        };
        received?;
        wait_until(SILENCE, "the acknowledgement of all data", || {
            Ok(information(&self.sender)?.tcpi_unacked == 0)
        })?;
        loss.remove()
    }

    /// The sender's end.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn local(&self) -> Result<SocketAddr> {
        self.sender
            .local_addr()
            .context("read the sender's address")
    }

    /// The receiver's end.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn remote(&self) -> Result<SocketAddr> {
        self.sender
            .peer_addr()
            .context("read the receiver's address")
    }

    /// Segments that the sender has sent again so far, by `TCP_INFO` of its socket.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn retransmitted(&self) -> Result<u32> {
        total_retransmits(&self.sender)
    }

    /// Ends the connection with a RST: nothing of it remains.
    ///
    /// # Errors
    /// When the sender cannot be told to.
    pub fn close(self) -> Result<()> {
        abort(self.sender)
    }
}

/// A connection from one end of a link to the other: the client's socket and the server's.
fn connect(client: &End, server: &End, family: Family) -> Result<(TcpStream, TcpStream)> {
    let listener = Listener::builder(server.address(family, 0)).open(server.ns())?;
    let address = listener.address();
    let connected = client
        .ns()
        .run(|| TcpStream::connect_timeout(&address, PATIENCE))
        .context("connect over the link")?;
    Ok((connected, listener.accept()?))
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
