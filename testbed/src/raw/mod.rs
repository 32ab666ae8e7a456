//! A TCP peer written by hand, behind a TUN device.
//!
//! The device carries bare IP packets (`IFF_TUN | IFF_NO_PI`). What is written is received by the
//! namespace's stack before `write` returns; what the stack sends to the device's subnet is read.
//! No address of the subnet exists outside the namespace, so nothing can leave it.

mod checksum;
mod client;
mod flood;
mod segment;
mod unreachable;

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use client::RawClient;
pub use flood::SynFlood;
pub use segment::{Flags, Segment};

use crate::{
    command, ioctl,
    link::{self, Plan},
    netns::Ns,
};

/// The device that makes TUN interfaces.
pub(crate) const TUN_DEVICE: &str = "/dev/net/tun";
/// Longest packet that is read: more than the device's MTU of 1,500.
const PACKET: usize = 2048;
/// Packets that the device holds until they are read. Beyond it the stack's sends fail, which would
/// count as other events than the ones asked for.
const QUEUE: usize = 16 * 1024;
/// Segments kept for later readers; beyond it the oldest are forgotten.
const INBOX: usize = 16 * 1024;
/// Clients of a peer have the addresses from this host number on; 1 is the kernel's own.
const FIRST_CLIENT: u8 = 2;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The far end of a TUN device: any number of hosts in its subnet.
#[derive(Debug)]
pub struct RawPeer {
    ns: Ns,
    tun: File,
    plan: Plan,
    family: Family,
    inbox: Mutex<VecDeque<Segment>>,
}

impl RawPeer {
    /// Adds a TUN device to `ns`. It disappears with the peer.
    ///
    /// # Errors
    /// When the kernel has no TUN driver or `ip` is missing.
    pub fn new(ns: &Ns, family: Family) -> Result<Self> {
        let plan = Plan::next()?;
        let device = format!("tbt{}", plan.serial());
        let tun = ns.run(|| open(&device))?;
        let (address, length) = match family {
            Family::V4 => (plan.v4_host(1), "24"),
            Family::V6 => (plan.v6_host(1), "64 nodad"),
        };
        let lines = format!(
            "link set {device} txqueuelen {QUEUE}\n\
             link set {device} up\n\
             addr add {address}/{length} dev {device}\n"
        );
        command::ip(ns, &lines).with_context(|| format!("configure {device}"))?;
        link::wait_local(ns, address)?;
        Ok(Self {
            ns: ns.clone(),
            tun,
            plan,
            family,
            inbox: Mutex::default(),
        })
    }

    /// The namespace whose stack is at the other end.
    #[must_use]
    pub fn ns(&self) -> &Ns {
        &self.ns
    }

    /// The namespace's own address on the device: what a listener is reached at.
    #[must_use]
    pub fn host(&self) -> IpAddr {
        self.address(1)
    }

    /// An address of the subnet. 1 is the namespace's, 255 the broadcast address of IPv4.
    #[must_use]
    pub fn address(&self, host: u8) -> IpAddr {
        match self.family {
            Family::V4 => self.plan.v4_host(host),
            Family::V6 => self.plan.v6_host(host),
        }
    }

    /// A client at the first remote address, with ports of the caller's choice.
    #[must_use]
    pub fn client(&self, source_port: u16, destination_port: u16) -> RawClient<'_> {
        let local = SocketAddr::new(self.address(FIRST_CLIENT), source_port);
        RawClient::new(self, local, SocketAddr::new(self.host(), destination_port))
    }

    /// A client with any two addresses, for example to send to a broadcast or group address.
    #[must_use]
    pub fn client_from(&self, local: SocketAddr, remote: SocketAddr) -> RawClient<'_> {
        RawClient::new(self, local, remote)
    }

    /// Hands a segment to the namespace's stack.
    ///
    /// # Errors
    /// When it mixes families, is too long, or the device does not take it.
    pub fn send(&self, segment: &Segment) -> Result<()> {
        self.write(&segment.encode()?)
            .with_context(|| format!("send {segment}"))
    }

    /// Answers a segment that the stack has sent with an ICMP error that ends a handshake: host
    /// unreachable for IPv4, administratively prohibited for IPv6.
    ///
    /// # Errors
    /// As [`RawPeer::send`].
    pub fn send_unreachable(&self, offending: &Segment) -> Result<()> {
        self.write(&unreachable::encode(offending)?)
            .with_context(|| format!("send an ICMP error about {offending}"))
    }

    fn write(&self, packet: &[u8]) -> Result<()> {
        let written = (&self.tun).write(packet)?;
        ensure!(
            written == packet.len(),
            "the device took {written} of {} bytes",
            packet.len()
        );
        Ok(())
    }

    /// Waits for the first segment from the stack that `wanted` accepts; others are kept.
    ///
    /// # Errors
    /// When none comes within `timeout`.
    pub fn receive(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&Segment) -> bool,
    ) -> Result<Segment> {
        let deadline = Instant::now() + timeout;
        loop {
            {
                let mut inbox = self.inbox();
                self.read_waiting(&mut inbox)?;
                if let Some(at) = inbox.iter().position(&mut wanted)
                    && let Some(segment) = inbox.remove(at)
                {
                    return Ok(segment);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no such segment from the stack within {timeout:?}");
            }
            self.wait_readable(left)?;
        }
    }

    /// All segments from the stack that have come and were not asked for yet.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn drain(&self) -> Result<Vec<Segment>> {
        let mut inbox = self.inbox();
        self.read_waiting(&mut inbox)?;
        Ok(inbox.drain(..).collect())
    }

    fn inbox(&self) -> MutexGuard<'_, VecDeque<Segment>> {
        // A queue of whole segments is never half changed, so a panic elsewhere does not matter.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what the device holds into the inbox. Packets that are not TCP are not ours.
    fn read_waiting(&self, inbox: &mut VecDeque<Segment>) -> Result<()> {
        let mut packet = [0; PACKET];
        loop {
            match (&self.tun).read(&mut packet) {
                Ok(length) => {
                    let packet = packet.get(..length).context("an oversized packet")?;
                    if let Some(segment) = Segment::decode(packet)? {
                        if inbox.len() == INBOX {
                            inbox.pop_front();
                        }
                        inbox.push_back(segment);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("read the TUN device"),
            }
        }
    }

    fn wait_readable(&self, left: Duration) -> Result<()> {
        let mut waiting = [PollFd::new(self.tun.as_fd(), PollFlags::POLLIN)];
        let timeout =
            PollTimeout::try_from(left.max(Duration::from_millis(1))).unwrap_or(PollTimeout::MAX);
        poll(&mut waiting, timeout)
            .context("wait for the TUN device")
            .map(drop)
    }
}

/// Makes a TUN interface in the calling thread's namespace.
fn open(device: &str) -> Result<File> {
    let tun = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN_DEVICE)
        .with_context(|| format!("open {TUN_DEVICE}"))?;
    let mut request = ioctl::request(device)?;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI)?;
    // SAFETY: TUNSETIFF reads the name and the flags of an ifreq.
    unsafe { ioctl::call(&tun, libc::TUNSETIFF, &mut request) }
        .with_context(|| format!("make the TUN interface {device}"))?;
    Ok(tun)
}
