//! One connection attempt of a raw peer, step by step.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    RawPeer,
    segment::{Flags, Segment},
};

/// Window and segment size of every client: plain Ethernet values.
const WINDOW: u16 = 64_240;
const SEGMENT_SIZE: u16 = 1460;
/// Distance between the initial sequence numbers of two clients.
const SEQUENCE_STEP: u32 = 0x0100_0193;
/// Further than any receive window.
const OUT_OF_WINDOW: u32 = 0x4000_0000;

static NEXT_SEQUENCE: AtomicU32 = AtomicU32::new(0x1000_0000);

/// A client that does nothing by itself: it acknowledges, retransmits and resets only when told.
#[derive(Debug)]
pub struct RawClient<'peer> {
    peer: &'peer RawPeer,
    local: SocketAddr,
    remote: SocketAddr,
    /// Our initial sequence number.
    initial: u32,
    /// Data bytes sent so far.
    sent: u32,
    /// What the SYN-ACK told us to acknowledge.
    acknowledgement: Option<u32>,
}

impl<'peer> RawClient<'peer> {
    pub(super) fn new(peer: &'peer RawPeer, local: SocketAddr, remote: SocketAddr) -> Self {
        let initial = NEXT_SEQUENCE.fetch_add(SEQUENCE_STEP, Ordering::Relaxed);
        Self {
            peer,
            local,
            remote,
            initial,
            sent: 0,
            acknowledgement: None,
        }
    }

    /// The client's own address.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends the SYN; again, it is a duplicate of the first.
    ///
    /// # Errors
    /// When the device does not take it.
    pub fn syn(&self) -> Result<()> {
        let mut segment = self.segment(self.initial, Flags::SYN);
        segment.options = Segment::maximum_segment_size(SEGMENT_SIZE);
        self.peer.send(&segment)
    }

    /// Sends the SYN with data, for a listener that takes TCP Fast Open without a cookie.
    ///
    /// # Errors
    /// When the device does not take it, or the data do not fit a packet.
    pub fn syn_data(&self, bytes: &[u8]) -> Result<()> {
        let mut segment = self.segment(self.initial, Flags::SYN);
        segment.options = Segment::maximum_segment_size(SEGMENT_SIZE);
        segment.payload = bytes.to_vec();
        self.peer.send(&segment)
    }

    /// Waits for a SYN-ACK and remembers what it asks to acknowledge.
    ///
    /// # Errors
    /// When none comes within `timeout`.
    pub fn syn_ack(&mut self, timeout: Duration) -> Result<Segment> {
        let (local, remote) = (self.local, self.remote);
        let expected = self.initial.wrapping_add(1);
        let segment = self
            .peer
            .receive(timeout, |segment| {
                segment.flags.has(Flags::SYN.and(Flags::ACK))
                    && (segment.source, segment.destination) == (remote, local)
                    && segment.acknowledgement == expected
            })
            .with_context(|| format!("wait for the SYN-ACK of {remote} to {local}"))?;
        self.acknowledgement = Some(segment.sequence.wrapping_add(1));
        Ok(segment)
    }

    /// SYN and SYN-ACK: leaves an embryonic request in the listener's SYN queue.
    ///
    /// # Errors
    /// When no SYN-ACK comes within `timeout`.
    pub fn half_open(&mut self, timeout: Duration) -> Result<Segment> {
        self.syn()?;
        self.syn_ack(timeout)
    }

    /// The ACK that ends the handshake; again, it is a duplicate.
    ///
    /// # Errors
    /// When there was no SYN-ACK, or the device does not take it.
    pub fn ack(&self) -> Result<()> {
        self.peer
            .send(&self.acknowledging(self.next(), Flags::NONE)?)
    }

    /// An ACK that acknowledges the SYN-ACK but whose sequence number is far outside the window.
    ///
    /// # Errors
    /// As [`RawClient::ack`].
    pub fn ack_out_of_window(&self) -> Result<()> {
        let sequence = self.next().wrapping_add(OUT_OF_WINDOW);
        self.peer.send(&self.acknowledging(sequence, Flags::NONE)?)
    }

    /// Data with an ACK.
    ///
    /// # Errors
    /// As [`RawClient::ack`], or when the data do not fit a packet.
    pub fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let mut segment = self.acknowledging(self.next(), Flags::PSH)?;
        segment.payload = bytes.to_vec();
        self.peer.send(&segment)?;
        self.sent = self
            .sent
            .wrapping_add(u32::try_from(bytes.len()).context("too much data")?);
        Ok(())
    }

    /// A FIN with an ACK, after a handshake.
    ///
    /// # Errors
    /// As [`RawClient::ack`].
    pub fn fin(&self) -> Result<()> {
        self.peer
            .send(&self.acknowledging(self.next(), Flags::FIN)?)
    }

    /// A RST with the right sequence number: ends an embryonic request or a connection.
    ///
    /// # Errors
    /// When the device does not take it.
    pub fn rst(&self) -> Result<()> {
        self.stray(Flags::RST)
    }

    /// A segment with these flags only and nothing acknowledged: without a handshake before, a
    /// stray one for whoever listens.
    ///
    /// # Errors
    /// When the device does not take it.
    pub fn stray(&self, flags: Flags) -> Result<()> {
        self.peer.send(&self.segment(self.next(), flags))
    }

    /// Sequence number of the next byte.
    fn next(&self) -> u32 {
        self.initial.wrapping_add(1).wrapping_add(self.sent)
    }

    fn acknowledging(&self, sequence: u32, flags: Flags) -> Result<Segment> {
        let mut segment = self.segment(sequence, flags.and(Flags::ACK));
        segment.acknowledgement = self.acknowledgement.context("no SYN-ACK to acknowledge")?;
        Ok(segment)
    }

    fn segment(&self, sequence: u32, flags: Flags) -> Segment {
        Segment {
            source: self.local,
            destination: self.remote,
            sequence,
            acknowledgement: 0,
            flags,
            window: WINDOW,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }
}
