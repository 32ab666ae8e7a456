//! TCP sockets of a namespace, from `/proc/thread-self/net/{tcp,tcp6}`: no kernel module needed.
//!
//! The form is that of `get_tcp4_sock`, `get_openreq4` and their IPv6 twins in net/ipv4/tcp_ipv4.c
//! and net/ipv6/tcp_ipv6.c.

use std::{fs, io};

use anyhow::{Context, Result, bail};

use crate::netns::Ns;

/// `TCP_SYN_RECV`, the state under which embryonic requests are listed.
const SYN_RECV: u8 = 3;
/// `TCP_LISTEN`.
const LISTEN: u8 = 10;

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    local_port: u16,
    state: u8,
    /// For a listener `sk_ack_backlog`: connections that wait to be accepted.
    receive_queue: u32,
    inode: u64,
}

/// How many connections wait to be accepted by the listener with this inode.
///
/// # Errors
/// When the tables cannot be read, or `ns` has no such listener.
pub fn accept_queue(ns: &Ns, inode: u64) -> Result<u32> {
    let row = rows(ns)?
        .into_iter()
        .find(|row| row.state == LISTEN && row.inode == inode);
    Ok(row
        .with_context(|| format!("{} has no listener {inode}", ns.name()))?
        .receive_queue)
}

/// How many handshakes with a local port are not finished: its part of the SYN queue.
///
/// # Errors
/// When the tables cannot be read.
pub fn embryos(ns: &Ns, local_port: u16) -> Result<usize> {
    let rows = rows(ns)?.into_iter();
    Ok(rows
        .filter(|row| row.state == SYN_RECV && row.local_port == local_port)
        .count())
}

/// Whether anything listens on a port of a namespace.
///
/// # Errors
/// When the tables cannot be read.
pub fn listens(ns: &Ns, local_port: u16) -> Result<bool> {
    let mut rows = rows(ns)?.into_iter();
    Ok(rows.any(|row| row.state == LISTEN && row.local_port == local_port))
}

/// Both tables of a namespace. A kernel without IPv6 has only one.
fn rows(ns: &Ns) -> Result<Vec<Row>> {
    let text = ns.run(|| -> Result<String> {
        let mut text =
            fs::read_to_string("/proc/thread-self/net/tcp").context("read the table of sockets")?;
        match fs::read_to_string("/proc/thread-self/net/tcp6") {
            Ok(more) => text.push_str(&more),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("read the table of IPv6 sockets"),
        }
        Ok(text)
    })?;
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("sl"));
    lines
        .map(|line| row(line).with_context(|| format!("parse {line:?}")))
        .collect()
}

/// One line: number, local, remote, state, queues, timer, retransmits, uid, timeout, inode, ...
fn row(line: &str) -> Result<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, state, queues, _, _, _, _, inode, ..] = fields.as_slice() else {
        bail!("too few fields");
    };
    let (_, local_port) = local
        .split_once(':')
        .context("a local address without a port")?;
    let (_, receive_queue) = queues.split_once(':').context("one queue instead of two")?;
    Ok(Row {
        local_port: u16::from_str_radix(local_port, 16).context("the local port")?,
        state: u8::from_str_radix(state, 16).context("the state")?,
        receive_queue: u32::from_str_radix(receive_queue, 16).context("the receive queue")?,
        inode: inode.parse().context("the inode")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_shows_its_accept_queue() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000009 00:00000000 00000000     \
                    0        0 31337 1 0000000000000000 100 0 0 10 0";
        let want = Row {
            local_port: 8080,
            state: LISTEN,
            receive_queue: 9,
            inode: 31337,
        };
        assert_eq!(row(line).unwrap(), want);
    }

    #[test]
    fn short_lines_are_refused() {
        assert!(row("0: 0100007F:1F90 00000000:0000 0A").is_err());
        assert!(row("0: 0100007F 00000000:0000 0A 0:0 0:0 0 0 0 1").is_err());
    }
}
