//! Just enough of HTTP to ask the agent from inside a network namespace.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result};
use testbed::Ns;

/// What the agent said.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Asks on the loopback address of `ns`.
pub(crate) fn get(ns: &Ns, port: u16, path: &str) -> Result<Answer> {
    let mut stream = ns.run(|| TcpStream::connect(("127.0.0.1", port)))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // HTTP 1.0: no chunks, and the end of the connection is the end of the answer.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: netobs\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}
