//! Retransmissions that fail on the sending machine itself.

use std::{io::Write, net::TcpStream, time::Duration};

use anyhow::{Context, Result, ensure};

use super::settled;
use crate::{
    command,
    link::Link,
    listener::{Listener, PATIENCE, abort, set_mark},
    netns::Ns,
    raw::Family,
    rule::{Hook, Rule, Select},
    witness::{Counters, Delta, wait_counted},
};

/// `SO_MARK` of the sockets whose segments the sender itself is to refuse.
const MARK: u32 = 0x6e6f;
/// Tail loss probes would come within milliseconds and count as well.
const PROBES: &str = "net.ipv4.tcp_early_retrans";
/// The third round comes 1.4 s after the segment.
const LAST_ROUND: Duration = Duration::from_secs(2);

/// Sends one small segment on each of `n` connections from end `a` of a link, loses it at end `b`,
/// and lets every retransmission fail in the output hook of `a`, `rounds` times: `n * rounds`
/// RetransSegs *and* TCPRetransFail, as the failure comes after the count. The first round comes
/// after 200 ms, the second 400 ms later.
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
    without_probes(ns, || {
        let mut connections = Connections::open(link, family, n)?;
        let _failing = Rule::drop_all(ns, Hook::Output, Select::Mark(MARK))?;
        let before = Counters::read_in(ns)?;
        // From the mark on: the segment itself is sent without it.
        connections.lose_a_segment(|stream| set_mark(stream, MARK))?;
        let want = u64::from(n) * u64::from(rounds);
        let timeout = LAST_ROUND + PATIENCE;
        wait_counted(ns, &before, "TcpExt", "TCPRetransFail", want, timeout)?;
        connections.abort()?;
        settled(
            ns,
            &before,
            &[
                ("TcpExt", "TCPRetransFail", want),
                ("Tcp", "RetransSegs", want),
            ],
        )
    })
}

/// As [`failing_sends`], but the retransmissions find no route and fail *before* the count: `n`
/// TCPTimeouts, and neither RetransSegs nor TCPRetransFail.
///
/// Sets `tcp_early_retrans` of the namespace of `a` to 0 meanwhile. Needs policy routing, and a
/// kernel that looks for a route anew when a socket's mark changes (5.11 and its backports).
///
/// # Errors
/// When the kernel counts anything else in time.
pub fn unroutable_sends(link: &Link, family: Family, n: u16) -> Result<Delta> {
    let ns = link.a.ns();
    without_probes(ns, || {
        let mut connections = Connections::open(link, family, n)?;
        let _route = Unroutable::add(ns, family)?;
        let before = Counters::read_in(ns)?;
        connections.lose_a_segment(|stream| set_mark(stream, MARK))?;
        let timeout = LAST_ROUND + PATIENCE;
        let want = u64::from(n);
        wait_counted(ns, &before, "TcpExt", "TCPTimeouts", want, timeout)?;
        connections.abort()?;
        let expected = [
            ("TcpExt", "TCPTimeouts", want),
            ("TcpExt", "TCPRetransFail", 0),
            ("Tcp", "RetransSegs", 0),
        ];
        settled(ns, &before, &expected)
    })
}

/// Runs `scenario` without tail loss probes in `ns`, and restores the setting also after an error.
fn without_probes(ns: &Ns, scenario: impl FnOnce() -> Result<Delta>) -> Result<Delta> {
    let probes = ns.read_sysctl(PROBES)?;
    ns.sysctl(PROBES, "0")?;
    let result = scenario();
    ns.sysctl(PROBES, &probes)?;
    result
}

/// Connections whose data end `b` of the link does not receive.
struct Connections {
    streams: Vec<TcpStream>,
    // Held, not used: closing them would send FINs, and dropping the rule would end the loss.
    _accepted: Vec<TcpStream>,
    _lost: Rule,
}

impl Connections {
    fn open(link: &Link, family: Family, n: u16) -> Result<Self> {
        let (sender, receiver) = (link.a.ns(), link.b.ns());
        let listener = Listener::builder(link.b.address(family, 0))
            .backlog(n)
            .open(receiver)?;
        let mut streams = Vec::with_capacity(usize::from(n));
        let mut accepted = Vec::with_capacity(usize::from(n));
        for _ in 0..n {
            let connect = || TcpStream::connect_timeout(&listener.address(), PATIENCE);
            streams.push(sender.run(connect).context("connect over the link")?);
            accepted.push(listener.accept()?);
        }
        let lost = Rule::drop_all(receiver, Hook::Input, Select::To(listener.port()))?;
        Ok(Self {
            streams,
            _accepted: accepted,
            _lost: lost,
        })
    }

    /// Writes one segment to each connection, and does `then` right after it.
    fn lose_a_segment(&mut self, then: impl Fn(&TcpStream) -> Result<()>) -> Result<()> {
        self.streams.iter_mut().try_for_each(|stream| {
            stream.write_all(b"lost").context("write")?;
            then(stream)
        })
    }

    fn abort(&mut self) -> Result<()> {
        self.streams.drain(..).try_for_each(abort)
    }
}

/// A routing rule that refuses marked segments, removed when dropped.
struct Unroutable {
    ns: Ns,
    family: Family,
}

impl Unroutable {
    fn add(ns: &Ns, family: Family) -> Result<Self> {
        let rule = format!("rule add fwmark {MARK} unreachable\n");
        command::ip_in_family(ns, family, &rule).context("take the route away")?;
        Ok(Self {
            ns: ns.clone(),
            family,
        })
    }
}

impl Drop for Unroutable {
    fn drop(&mut self) {
        let rule = format!("rule del fwmark {MARK} unreachable\n");
        // Nobody to report to; at the latest the namespace takes its rules with it.
        let _ = command::ip_in_family(&self.ns, self.family, &rule);
    }
}
