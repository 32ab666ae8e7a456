//! Handshakes whose other side stays silent.

use std::{os::fd::OwnedFd, time::Duration};

use anyhow::{Result, ensure};

use super::{overflow::half_open, settled};
use crate::{
    link::Link,
    listener::{Listener, PATIENCE, connect_nonblocking},
    netns::Ns,
    raw::{Family, RawClient, RawPeer},
    rule::{Hook, Rule, Select},
    witness::{Counters, Delta, sockets, wait_counted, wait_until},
};

/// Discard, RFC 863: nobody listens there.
const SILENT_PORT: u16 = 9;

/// Time until the `rounds`-th retransmission of a SYN or SYN-ACK, with reserve: the first comes
/// after one second (`TCP_TIMEOUT_INIT`), the next after two more at most.
fn rounds_timeout(rounds: u8) -> Result<Duration> {
    ensure!(
        matches!(rounds, 1 | 2),
        "{rounds} rounds of retransmissions; 1 or 2 are bounded well"
    );
    Ok(Duration::from_secs(if rounds == 1 { 1 } else { 3 }) + PATIENCE)
}

/// Settings of a namespace for the time of a scenario.
///
/// Where it has sent a handshake's packet often enough, the kernel gives the handshake up: however late a
/// busy machine comes to look, it finds no round too many. Where the distance between SYNs can be linear
/// (6.5 and later), it is made to grow: there, the second round was due a second after the first.
struct Rounds {
    ns: Ns,
    before: Vec<(&'static str, String)>,
}

impl Rounds {
    const LINEAR: &str = "net.ipv4.tcp_syn_linear_timeouts";

    fn of(ns: &Ns, retries: &'static str, rounds: u8) -> Result<Self> {
        let mut settings = Self {
            ns: ns.clone(),
            before: Vec::new(),
        };
        settings.set(retries, &rounds.to_string())?;
        if ns.read_sysctl(Self::LINEAR).is_ok() {
            settings.set(Self::LINEAR, "0")?;
        }
        Ok(settings)
    }

    fn set(&mut self, key: &'static str, value: &str) -> Result<()> {
        let before = self.ns.read_sysctl(key)?;
        self.ns.sysctl(key, value)?;
        self.before.push((key, before));
        Ok(())
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        for (key, value) in &self.before {
            // The namespace is the test's own: what fails here fails where it is used again.
            let _ = self.ns.sysctl(key, value);
        }
    }
}

/// Begins `n` connections from end `a` of a link to an address of end `b` that swallows SYNs, and
/// waits until each SYN was sent `rounds` times more: `n * rounds` TCPSynRetrans and RetransSegs
/// in the namespace of `a`. Takes 1 s for one round, 3 s for two.
///
/// Needs `n` free file descriptors. Bursts above the host's `netdev_max_backlog` (1,000) may also
/// count as TCPRetransFail.
///
/// # Errors
/// When `rounds` is neither 1 nor 2, or the kernel counts anything else in time.
pub fn syn_blackhole(link: &Link, family: Family, n: u32, rounds: u8) -> Result<Delta> {
    let timeout = rounds_timeout(rounds)?;
    let _swallow = Rule::drop_all(link.b.ns(), Hook::Input, Select::To(SILENT_PORT))?;
    let target = link.b.address(family, SILENT_PORT);
    let ns = link.a.ns();
    let _rounds = Rounds::of(ns, "net.ipv4.tcp_syn_retries", rounds)?;
    let before = Counters::read_in(ns)?;
    let sockets: Vec<OwnedFd> = ns.run(|| {
        (0..n)
            .map(|_| connect_nonblocking(target))
            .collect::<Result<_>>()
    })?;
    let want = u64::from(n) * u64::from(rounds);
    wait_counted(ns, &before, "TcpExt", "TCPSynRetrans", want, timeout)?;
    drop(sockets);
    settled(
        ns,
        &before,
        &[
            ("TcpExt", "TCPSynRetrans", want),
            ("Tcp", "RetransSegs", want),
        ],
    )
}

/// Opens `n` handshakes with a listener, never finishes them, and waits until each SYN-ACK was
/// sent `rounds` times more: `n * rounds` TCPSynRetrans and RetransSegs, none of any connection.
/// Then ends the handshakes with RSTs (one `sk_drops` each, no ListenDrops).
///
/// # Errors
/// When the listener's backlog is below `2 * n + 8` (the kernel would give up earlier), when
/// `rounds` is neither 1 nor 2, or when the kernel counts anything else in time.
pub fn syn_ack_retransmits(
    peer: &RawPeer,
    listener: &Listener,
    n: u16,
    rounds: u8,
) -> Result<Delta> {
    let timeout = rounds_timeout(rounds)?;
    ensure!(
        u32::from(listener.backlog()) >= u32::from(n) * 2 + 8,
        "a backlog of {} is too short for {n} patient handshakes",
        listener.backlog()
    );
    let ns = listener.ns();
    let _rounds = Rounds::of(ns, "net.ipv4.tcp_synack_retries", rounds)?;
    let before = Counters::read_in(ns)?;
    let clients = half_open(peer, listener, n)?;
    let want = u64::from(n) * u64::from(rounds);
    wait_counted(ns, &before, "TcpExt", "TCPSynRetrans", want, timeout)?;
    clients.iter().try_for_each(RawClient::rst)?;
    wait_until(PATIENCE, "an empty SYN queue", || {
        Ok(sockets::embryos(ns, listener.port())? == 0)
    })?;
    peer.drain()?;
    settled(
        ns,
        &before,
        &[
            ("TcpExt", "TCPSynRetrans", want),
            ("Tcp", "RetransSegs", want),
        ],
    )
}
