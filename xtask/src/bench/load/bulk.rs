//! One connection that moves as much as it can.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testbed::rule::Select;
use testbed::{Family, Hook, Link, Listener, NetNs, Rule};

const CHUNK: usize = 128 * 1024;
/// One packet in this many is lost.
const EVERY: u32 = 100;

/// Two namespaces and a link between them, lossless or not.
pub(crate) struct Bulk {
    link: Link,
    listener: Listener,
    _loss: Option<Rule>,
    _spaces: [NetNs; 2],
}

impl Bulk {
    /// `lossy`: every hundredth packet to the receiver is dropped there. That is 1 %, evenly
    /// spread: nft counts, netem is not in every kernel.
    pub(crate) fn new(lossy: bool) -> Result<Self> {
        let spaces = [NetNs::new("send")?, NetNs::new("receive")?];
        let [sender, receiver] = &spaces;
        let link = Link::veth(sender, receiver)?;
        let listener = Listener::builder(link.b.address(Family::V4, 0)).open(receiver)?;
        let loss = lossy
            .then(|| Rule::drop_each(receiver, Hook::Input, Select::To(listener.port()), EVERY))
            .transpose()?;
        Ok(Self {
            link,
            listener,
            _loss: loss,
            _spaces: spaces,
        })
    }

    /// Sends for this long. Returns megabytes a second, as received.
    pub(crate) fn send(&self, time: Duration) -> Result<f64> {
        let address = self.listener.address();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(20));
        let mut sender = self
            .link
            .a
            .ns()
            .run(connect)
            .context("failed to connect over the link")?;
        let receiver = self.listener.accept()?;
        let begun = Instant::now();
        let reader = std::thread::spawn(move || receive(receiver));
        let chunk = vec![0x5a; CHUNK];
        while begun.elapsed() < time {
            sender.write_all(&chunk).context("failed to send")?;
        }
        drop(sender);
        let Ok(received) = reader.join() else {
            bail!("the receiver panicked");
        };
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let bytes = received? as f64;
        Ok(bytes / 1e6 / begun.elapsed().as_secs_f64())
    }
}

fn receive(mut receiver: TcpStream) -> Result<u64> {
    receiver
        .set_nonblocking(false)
        .context("failed to set up the receiver")?;
    receiver
        .set_read_timeout(Some(Duration::from_secs(30)))
        .context("failed to set up the receiver")?;
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match receiver.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(more) => bytes += more as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("failed to receive"),
        }
    }
}
