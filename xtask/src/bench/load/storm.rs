//! Connections that are opened, accepted and closed, as fast as it goes.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testbed::NetNs;

/// A namespace where one thread accepts and closes, and another connects and waits for the end.
pub(crate) struct Storm {
    ns: NetNs,
    address: SocketAddr,
    over: Arc<AtomicBool>,
    server: Option<std::thread::JoinHandle<()>>,
}

impl Storm {
    pub(crate) fn new() -> Result<Self> {
        let ns = NetNs::new("storm")?;
        // A port is free again at once: TIME_WAIT would use them up within seconds.
        ns.sysctl("net.ipv4.tcp_max_tw_buckets", "1")?;
        ns.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        let listener = ns
            .run(|| TcpListener::bind("127.0.0.1:0"))
            .context("failed to listen")?;
        let address = listener.local_addr().context("failed to listen")?;
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let server = ns.spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                drop(stream);
                if end.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Ok(Self {
            ns,
            address,
            over,
            server: Some(server),
        })
    }

    /// Connects until the time is over. Returns connections a second.
    pub(crate) fn blow(&self, time: Duration) -> Result<f64> {
        let begun = Instant::now();
        let count = self.connect_while(|_| begun.elapsed() < time)?;
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = count as f64;
        Ok(count / begun.elapsed().as_secs_f64())
    }

    /// Makes this many connections.
    pub(crate) fn connections(&self, wanted: u64) -> Result<()> {
        self.connect_while(|made| made < wanted).map(drop)
    }

    fn connect_while(&self, go_on: impl Fn(u64) -> bool + Sync) -> Result<u64> {
        let address = self.address;
        self.ns.run(|| -> Result<u64> {
            let mut made = 0;
            let mut nothing = [0; 16];
            while go_on(made) {
                let mut stream = TcpStream::connect(address).context("failed to connect")?;
                match stream.read(&mut nothing) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                    Err(error) => return Err(error).context("failed to read to the end"),
                }
                made += 1;
            }
            Ok(made)
        })
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the server up, so that it sees that it is over.
        let address = self.address;
        let _ = self.ns.run(|| TcpStream::connect(address));
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}
