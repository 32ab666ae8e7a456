//! Sockets in great number that are kept: SYNs into nothing, sent again each second.
//!
//! Each descriptor limit holds for one process, and not every root may raise it: the sockets are
//! held by children of the benchmark, which is started anew for each.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, ensure};
use testbed::rule::Select;
use testbed::{Counters, Family, Hook, Link, NetNs, Rule, connect_nonblocking};

/// Sockets of one child: below every usual limit of descriptors.
const PER_CHILD: u32 = 16_000;
/// The first of the ports that swallow SYNs; each child has its own.
const FIRST_PORT: u16 = 9;

/// Options of the child; it is no task of its own.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to connect to
    target: SocketAddr,
    /// How many sockets
    count: u32,
}

/// The child: opens its sockets, says so, and keeps them until its input ends.
pub(crate) fn hold(args: &Args) -> Result<()> {
    let sockets: Vec<OwnedFd> = (0..args.count)
        .map(|_| connect_nonblocking(args.target))
        .collect::<Result<_>>()?;
    println!("{}", sockets.len());
    std::io::stdout().flush().context("failed to say so")?;
    let mut nothing = Vec::new();
    std::io::stdin()
        .read_to_end(&mut nothing)
        .context("failed to wait")?;
    Ok(())
}

/// Two namespaces; what the first sends to some ports of the second is swallowed.
pub(crate) struct BlackHole {
    holders: Vec<Holder>,
    link: Link,
    rules: Vec<Rule>,
    sender: NetNs,
    _receiver: NetNs,
}

struct Holder {
    child: Child,
    input: Option<ChildStdin>,
}

impl BlackHole {
    pub(crate) fn new() -> Result<Self> {
        let (sender, receiver) = (NetNs::new("hold")?, NetNs::new("hole")?);
        sender.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        // Where the kernel has it (6.5): a retransmission each second, not at growing distances.
        let _ = sender.sysctl("net.ipv4.tcp_syn_linear_timeouts", "127");
        let link = Link::veth(&sender, &receiver)?;
        Ok(Self {
            holders: Vec::new(),
            link,
            rules: Vec::new(),
            sender,
            _receiver: receiver,
        })
    }

    pub(crate) fn netns(&self) -> u32 {
        self.sender.inode()
    }

    /// SYNs that were sent again so far.
    pub(crate) fn retransmitted(&self) -> Result<u64> {
        Ok(Counters::read_in(&self.sender)?.get("TcpExt", "TCPSynRetrans"))
    }

    /// Opens this many sockets more.
    pub(crate) fn add(&mut self, mut count: u32) -> Result<()> {
        while count > 0 {
            let now = count.min(PER_CHILD);
            let serial = u16::try_from(self.holders.len()).context("too many sockets")?;
            let port = FIRST_PORT.checked_add(serial).context("too many sockets")?;
            let swallow = Rule::drop_all(self.link.b.ns(), Hook::Input, Select::To(port))?;
            self.rules.push(swallow);
            let target = self.link.b.address(Family::V4, port);
            self.holders.push(Holder::start(&self.sender, target, now)?);
            count -= now;
        }
        Ok(())
    }
}

impl Holder {
    fn start(ns: &NetNs, target: SocketAddr, count: u32) -> Result<Self> {
        let own = std::env::current_exe().context("failed to find this program")?;
        let mut child = ns
            .run(|| {
                Command::new(own)
                    .args(["bench-hold", &target.to_string(), &count.to_string()])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
            })
            .context("failed to start a holder of sockets")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("a child without output")?;
        let holder = Self { child, input };
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .context("failed to hear from a holder of sockets")?;
        ensure!(
            line.trim() == count.to_string(),
            "a holder could not open {count} sockets"
        );
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.input = None;
        let _ = self.child.wait();
    }
}
