//! Retransmissions that fail on the sending machine itself.

use std::{io::Write, net::TcpStream, time::Duration};

use anyhow::{Context, Result, ensure};

use super::settled;
use crate::{
    link::Link,
    listener::{Listener, PATIENCE, abort, set_mark},
    raw::Family,
    rule::{Hook, Rule, Select},
    witness::{Counters, Delta, wait_counted},
};

/// `SO_MARK` of the sockets whose segments the sender's own firewall drops.
const MARK: u32 = 0x6e6f;
/// Tail loss probes would come within milliseconds and count as well.
const PROBES: &str = "net.ipv4.tcp_early_retrans";

/// Sends one small segment on each of `n` connections from end `a` of a link, loses it at end `b`,
/// and lets every retransmission fail in the output hook of `a`, `rounds` times: `n * rounds`
/// RetransSegs *and* TCPRetransFail (a failure after the counters were moved). The first round
/// comes after 200 ms, the second 400 ms later.
///
/// Sets `tcp_early_retrans` of the namespace of `a` to 0 meanwhile.
///
/// # Errors
/// When `rounds` is not 1 to 3, or the kernel counts anything else in time.
pub fn failing_sends(link: &Link, family: Family, n: u16, rounds: u8) -> Result<Delta> {
    ensure!(
        (1..=3).contains(&rounds),
        "{rounds} rounds of failures; 1 to 3 are bounded well"
    );
    let ns = link.a.ns();
    let probes = ns.read_sysctl(PROBES)?;
    ns.sysctl(PROBES, "0")?;
    let result = run(link, family, n, rounds);
    ns.sysctl(PROBES, &probes)?;
    result
}

fn run(link: &Link, family: Family, n: u16, rounds: u8) -> Result<Delta> {
    let (sender, receiver) = (link.a.ns(), link.b.ns());
    let listener = Listener::builder(link.b.address(family, 0))
        .backlog(n)
        .open(receiver)?;
    let mut streams = Vec::with_capacity(usize::from(n));
    let mut accepted = Vec::with_capacity(usize::from(n));
    for _ in 0..n {
        let connected = sender.run(|| TcpStream::connect_timeout(&listener.address(), PATIENCE));
        streams.push(connected.context("connect over the link")?);
        accepted.push(listener.accept()?);
    }
    let _lost = Rule::drop_all(receiver, Hook::Input, Select::To(listener.port()))?;
    let _failing = Rule::drop_all(sender, Hook::Output, Select::Mark(MARK))?;
    let before = Counters::read_in(sender)?;
    for stream in &mut streams {
        stream.write_all(b"lost").context("write")?;
        // From here on: the segment itself was sent without the mark.
        set_mark(stream, MARK)?;
    }
    let want = u64::from(n) * u64::from(rounds);
    let timeout = Duration::from_secs(2) + PATIENCE;
    wait_counted(sender, &before, "TcpExt", "TCPRetransFail", want, timeout)?;
    streams.into_iter().try_for_each(abort)?;
    settled(
        sender,
        &before,
        &[
            ("TcpExt", "TCPRetransFail", want),
            ("Tcp", "RetransSegs", want),
        ],
    )
}
