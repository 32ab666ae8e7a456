//! SYNs over a TUN device: as many SYN-ACK retransmissions or listen drops as wanted.

use std::time::{Duration, Instant};

use anyhow::Result;
use testbed::{Counters, Family, Listener, NetNs, RawPeer};

/// Clients of a flood: each holds one handshake half open.
const CLIENTS: u16 = 64;
/// Bursts of a paced flood follow each other this fast.
const BEAT: Duration = Duration::from_millis(1);

/// What the kernel does with each SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It retransmits a SYN-ACK.
    Retransmits,
    /// It drops it: the accept queue is full.
    Overflows,
}

/// A namespace with a listener, and a peer that can send it SYNs.
pub(crate) struct Flood {
    effect: Effect,
    peer: RawPeer,
    listener: Listener,
    ns: NetNs,
}

/// What a flood did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// How far the kernel's counter of the effect moved.
    pub(crate) counted: u64,
    /// How long it took.
    pub(crate) time: Duration,
}

impl Done {
    /// Events a second.
    pub(crate) fn rate(self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let counted = self.counted as f64;
        counted / self.time.as_secs_f64()
    }
}

impl Flood {
    pub(crate) fn new(effect: Effect) -> Result<Self> {
        let ns = NetNs::new("flood")?;
        // Without it, a client's duplicate SYN is answered twice a second only.
        ns.sysctl("net.ipv4.tcp_invalid_ratelimit", "0")?;
        let peer = RawPeer::new(&ns, Family::V4)?;
        let backlog = match effect {
            Effect::Retransmits => 4 * CLIENTS,
            Effect::Overflows => 1,
        };
        let listener = Listener::builder((peer.host(), 0).into())
            .backlog(backlog)
            .open(&ns)?;
        if effect == Effect::Overflows {
            listener.fill()?;
        } else {
            peer.syn_flood(listener.port(), CLIENTS)?
                .send(CLIENTS.into())?;
        }
        Ok(Self {
            effect,
            peer,
            listener,
            ns,
        })
    }

    /// The namespace's inode number, which is the label `netns`.
    pub(crate) fn netns(&self) -> u32 {
        self.ns.inode()
    }

    /// The kernel's counter of the effect.
    pub(crate) fn counter(&self) -> Result<u64> {
        let name = match self.effect {
            Effect::Retransmits => "TCPSynRetrans",
            Effect::Overflows => "ListenDrops",
        };
        Ok(Counters::read_in(&self.ns)?.get("TcpExt", name))
    }

    /// Sends this many SYNs as fast as it goes.
    pub(crate) fn send(&self, n: u64) -> Result<Done> {
        self.measured(|| self.peer.syn_flood(self.listener.port(), CLIENTS)?.send(n))
    }

    /// Sends for this long, as fast as it goes or at a rate.
    pub(crate) fn send_for(&self, time: Duration, rate: Option<u64>) -> Result<Done> {
        self.measured(|| {
            let mut flood = self.peer.syn_flood(self.listener.port(), CLIENTS)?;
            let begun = Instant::now();
            let mut sent = 0;
            while begun.elapsed() < time {
                let Some(rate) = rate else {
                    flood.send(1024)?;
                    continue;
                };
                let due = u128::from(rate) * begun.elapsed().as_micros() / 1_000_000;
                let more = u64::try_from(due)?.saturating_sub(sent);
                flood.send(more)?;
                sent += more;
                std::thread::sleep(BEAT);
            }
            Ok(())
        })
    }

    fn measured(&self, work: impl FnOnce() -> Result<()>) -> Result<Done> {
        let before = self.counter()?;
        let begun = Instant::now();
        work()?;
        let time = begun.elapsed();
        // What was sent is handled before the write returns: nothing is under way.
        Ok(Done {
            counted: self.counter()?.wrapping_sub(before),
            time,
        })
    }
}
