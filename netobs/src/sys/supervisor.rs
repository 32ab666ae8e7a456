//! Telling the service manager how it goes, by the `sd_notify(3)` protocol.
//!
//! The socket is opened once, at start, so that the agent needs no right to open sockets later.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::{Duration, Instant},
};

/// A connection to the service manager that started this process.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixDatagram,
    /// After how long without a word the manager takes the process for dead.
    watchdog: Option<Duration>,
    last_word: Instant,
}

impl Supervisor {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. `Ok(None)` when nobody asked.
    ///
    /// # Errors
    /// When the socket cannot be reached.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        // For another process of the same service: not ours to feed.
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC")
            .filter(|microseconds| ours && *microseconds > 0)
            .map(Duration::from_micros);
        Self::connect(name.as_bytes(), watchdog).map(Some)
    }

    fn connect(name: &[u8], watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.split_first() {
            Some((b'/', _)) => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A manager that does not read must not hold the agent.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            watchdog,
            last_word: Instant::now(),
        })
    }

    /// Everything is attached, and requests are answered.
    ///
    /// # Errors
    /// When the manager does not take it.
    pub fn ready(&self) -> io::Result<()> {
        self.say("READY=1")
    }

    /// The configuration is being read again; [`Supervisor::ready`] ends it.
    ///
    /// # Errors
    /// When the manager does not take it.
    pub fn reloading(&self) -> io::Result<()> {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
        let microseconds = now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"))
    }

    /// The process is about to end.
    ///
    /// # Errors
    /// When the manager does not take it.
    pub fn stopping(&self) -> io::Result<()> {
        self.say("STOPPING=1")
    }

    /// The process does its work: to be called whenever it has. Says so three times within the time
    /// that the manager waits, and nothing when the manager does not wait.
    ///
    /// # Errors
    /// When the manager does not take it.
    pub fn alive(&mut self, now: Instant) -> io::Result<()> {
        match self.watchdog {
            Some(limit) if now.saturating_duration_since(self.last_word) >= limit / 3 => {
                self.last_word = now;
                self.say("WATCHDOG=1")
            }
            _ => Ok(()),
        }
    }

    fn say(&self, text: &str) -> io::Result<()> {
        self.socket.send(text.as_bytes()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        match manager.recv(&mut bytes) {
            Ok(length) => String::from_utf8_lossy(&bytes[..length]).into_owned(),
            Err(_) => String::new(),
        }
    }

    #[test]
    fn words_reach_the_manager_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("netobs-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (manager, name) in [
            (
                UnixDatagram::bind(&path).unwrap(),
                path.as_os_str().as_bytes().to_vec(),
            ),
            (
                UnixDatagram::bind_addr(&address).unwrap(),
                format!("@{abstract_name}").into_bytes(),
            ),
        ] {
            manager.set_nonblocking(true).unwrap();
            let supervisor = Supervisor::connect(&name, None).unwrap();
            supervisor.ready().unwrap();
            assert_eq!(heard(&manager), "READY=1");
            supervisor.reloading().unwrap();
            assert!(heard(&manager).starts_with("RELOADING=1\nMONOTONIC_USEC="));
            supervisor.stopping().unwrap();
            assert_eq!(heard(&manager), "STOPPING=1");
        }
        assert!(Supervisor::connect(b"vsock:2:1", None).is_err());
    }

    #[test]
    fn the_watchdog_is_fed_three_times_within_its_patience() {
        let (socket, manager) = UnixDatagram::pair().unwrap();
        manager.set_nonblocking(true).unwrap();
        let start = Instant::now();
        let mut supervisor = Supervisor {
            socket,
            watchdog: Some(Duration::from_secs(30)),
            last_word: start,
        };
        for (second, word) in [
            (0, ""),
            (9, ""),
            (10, "WATCHDOG=1"),
            (11, ""),
            (20, "WATCHDOG=1"),
        ] {
            supervisor
                .alive(start + Duration::from_secs(second))
                .unwrap();
            assert_eq!(heard(&manager), word, "{second}");
        }
        supervisor.watchdog = None;
        supervisor.alive(start + Duration::from_secs(90)).unwrap();
        assert_eq!(heard(&manager), "");
    }
}
