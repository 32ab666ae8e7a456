//! A name server that does what the name says, and queries.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::netns::Ns;

/// The port of name servers.
pub const PORT: u16 = 53;
/// Length of a message's header.
const HEADER_BYTES: usize = 12;
/// How often the server looks whether it shall stop.
const PAUSE: Duration = Duration::from_millis(20);

/// A query with recursion desired for type `kind` (1 is A) of a name, one label per dot.
#[must_use]
pub fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = Vec::new();
    for field in [id, 0x0100, 1, 0, 0, 0] {
        message.extend_from_slice(&field.to_be_bytes());
    }
    for label in name.split('.') {
        let label = label.as_bytes();
        message.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        message.extend_from_slice(label);
    }
    message.push(0);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    message
}

/// The answer to a query: the same with these flags beside "response".
#[must_use]
pub fn answer(query: &[u8], flags: u16) -> Vec<u8> {
    let mut message = query.to_vec();
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&(0x8180 | flags).to_be_bytes());
    }
    message
}

/// Answers that wait, and for whom.
type Held = Mutex<Vec<(Vec<u8>, SocketAddr)>>;

/// What a server received and sent.
#[derive(Debug, Default)]
struct Tally {
    queries: AtomicU64,
    answers: AtomicU64,
}

/// A name server on UDP port 53. The first label of a name tells what becomes of the query:
/// `ok`, `nx`, `servfail` and `tc` (cut short) are answered so; `twice` is answered two times;
/// `late` when [`NameServer::release`] is called; anything else, such as `never`, is not.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    socket: UdpSocket,
    tally: Arc<Tally>,
    held: Arc<Held>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Opens one in a namespace.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn open(ns: &Ns, ip: IpAddr) -> Result<Self> {
        let address = SocketAddr::new(ip, PORT);
        let socket = ns
            .run(|| UdpSocket::bind(address))
            .with_context(|| format!("bind {address}"))?;
        socket
            .set_read_timeout(Some(PAUSE))
            .context("set a timeout")?;
        let mut server = Self {
            address,
            socket: socket.try_clone().context("clone a socket")?,
            tally: Arc::default(),
            held: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        let (tally, held, stop) = (
            Arc::clone(&server.tally),
            Arc::clone(&server.held),
            Arc::clone(&server.stop),
        );
        server.thread = Some(std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                match socket.recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        let query = buffer.get(..length).unwrap_or_default();
                        serve(&socket, query, from, &tally, &held);
                    }
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                        ) => {}
                    // A refusal that a client's kernel sent for an answer that came too late.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(_) => return,
                }
            }
        }));
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Datagrams that it received.
    #[must_use]
    pub fn queries(&self) -> u64 {
        self.tally.queries.load(Ordering::Relaxed)
    }

    /// Answers that it sent.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.tally.answers.load(Ordering::Relaxed)
    }

    /// Answers the queries for `late` names, and returns how many there were.
    ///
    /// # Errors
    /// When an answer cannot be sent.
    pub fn release(&self) -> Result<u64> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut released = 0;
        for (message, to) in held.drain(..) {
            self.send(&message, to)?;
            released += 1;
        }
        Ok(released)
    }

    /// Sends any bytes from the server's port.
    ///
    /// # Errors
    /// When they cannot be sent.
    pub fn send(&self, message: &[u8], to: SocketAddr) -> Result<()> {
        self.socket.send_to(message, to).context("send an answer")?;
        self.tally.answers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, query: &[u8], from: SocketAddr, tally: &Tally, held: &Held) {
    let times_and_flags = match first_label(query) {
        b"ok" => (1, 0),
        b"twice" => (2, 0),
        b"tc" => (1, 0x0200),
        b"nx" => (1, 3),
        b"servfail" => (1, 2),
        b"late" => {
            let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
            held.push((answer(query, 0), from));
            (0, 0)
        }
        _ => (0, 0),
    };
    let (times, flags) = times_and_flags;
    for _ in 0..times {
        if socket.send_to(&answer(query, flags), from).is_ok() {
            tally.answers.fetch_add(1, Ordering::Relaxed);
        }
    }
    // Last: who waits for it finds the rest done.
    tally.queries.fetch_add(1, Ordering::Relaxed);
}

fn first_label(query: &[u8]) -> &[u8] {
    let label = || {
        let (length, rest) = query.get(HEADER_BYTES..)?.split_first()?;
        rest.get(..usize::from(*length))
    };
    label().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_its_name_where_the_server_looks() {
        let message = query(0x1234, "nx.example", 28);
        assert_eq!(message.len(), HEADER_BYTES + 1 + 2 + 1 + 7 + 1 + 4);
        assert_eq!(first_label(&message), b"nx");
        assert_eq!(&answer(&message, 3)[..4], &[0x12, 0x34, 0x81, 0x83]);
        assert_eq!(first_label(b"short"), b"");
        assert_eq!(answer(b"x", 0), b"x");
    }
}
