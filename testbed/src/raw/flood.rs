//! SYNs in great number, encoded once.

use std::io::{self, Read};

use anyhow::{Context, Result, ensure};

use super::{FIRST_CLIENT, Flags, PACKET, RawPeer, Segment};

/// First source port of a flood: no other clients of a [`RawPeer`] use these by themselves.
const FIRST_PORT: u16 = 20_000;
/// SYNs between two looks at what the stack answers; far less than the device holds.
const BATCH: u64 = 64;

/// A fixed set of clients that send their SYN again and again. Answers are thrown away.
///
/// To a listener with room, the first SYN of each client opens a handshake and every other is a
/// duplicate, which the kernel answers with a retransmitted SYN-ACK (at once, when
/// `net.ipv4.tcp_invalid_ratelimit` of the namespace is 0). A listener whose accept queue is full
/// drops them all.
#[derive(Debug)]
pub struct SynFlood<'peer> {
    peer: &'peer RawPeer,
    packets: Vec<Vec<u8>>,
    next: usize,
}

impl RawPeer {
    /// A flood of SYNs from this many clients to a port of the namespace.
    ///
    /// # Errors
    /// When there are no clients, or more than there are source ports.
    pub fn syn_flood(&self, port: u16, clients: u16) -> Result<SynFlood<'_>> {
        ensure!(clients > 0, "a flood of no clients");
        let packets = (0..clients)
            .map(|client| {
                let source_port = FIRST_PORT.checked_add(client).context("too many clients")?;
                Segment {
                    source: (self.address(FIRST_CLIENT), source_port).into(),
                    destination: (self.host(), port).into(),
                    sequence: u32::from(client) << 16,
                    acknowledgement: 0,
                    flags: Flags::SYN,
                    window: 64_240,
                    options: Segment::maximum_segment_size(1460),
                    payload: Vec::new(),
                }
                .encode()
            })
            .collect::<Result<_>>()?;
        Ok(SynFlood {
            peer: self,
            packets,
            next: 0,
        })
    }

    /// Throws away what the stack has sent, unseen. Returns how many packets it was.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn discard(&self) -> Result<u64> {
        let mut packet = [0; PACKET];
        let mut discarded = 0;
        loop {
            match (&self.tun).read(&mut packet) {
                Ok(_) => discarded += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(discarded),
                Err(error) => return Err(error).context("read the TUN device"),
            }
        }
    }
}

impl SynFlood<'_> {
    /// Sends `n` SYNs, one client after the other.
    ///
    /// # Errors
    /// When the device does not take one or cannot be read.
    pub fn send(&mut self, n: u64) -> Result<()> {
        for sent in 1..=n {
            let packet = self.packets.get(self.next).context("no such client")?;
            self.peer.write(packet)?;
            self.next = (self.next + 1) % self.packets.len();
            if sent % BATCH == 0 {
                self.peer.discard()?;
            }
        }
        self.peer.discard().map(drop)
    }
}
