//! Listening sockets inside a namespace, and ordinary connections to them.

mod connect;
mod group;
mod options;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{Backlog, SockaddrStorage, bind, listen, setsockopt, sockopt};

pub(crate) use connect::information;
pub use connect::{abort, connect_nonblocking, set_mark, total_retransmits};
pub use group::ListenGroup;

use crate::{
    netns::Ns,
    witness::{diag, diag::ListenerState, sockets, wait_until},
};

/// How long handshakes inside one machine may take, also under an emulator.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// An MPTCP socket, to see whether there is such a thing.
pub(crate) fn mptcp_socket() -> io::Result<OwnedFd> {
    options::stream((Ipv4Addr::LOCALHOST, 0).into(), libc::IPPROTO_MPTCP)
}

/// How to open a [`Listener`]. Without further calls: backlog 128, no options.
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    address: SocketAddr,
    backlog: u16,
    v6only: Option<bool>,
    reuse_port: bool,
    defer_accept_secs: Option<u32>,
    fast_open: Option<u32>,
    mptcp: bool,
}

impl Builder {
    /// The `backlog` argument of `listen`: one connection more than this fits the accept queue.
    #[must_use]
    pub fn backlog(mut self, backlog: u16) -> Self {
        self.backlog = backlog;
        self
    }

    /// Sets or clears `IPV6_V6ONLY`; cleared, a listener on `[::]` is reached over IPv4 as well.
    #[must_use]
    pub fn v6only(mut self, only: bool) -> Self {
        self.v6only = Some(only);
        self
    }

    /// Sets `SO_REUSEPORT`.
    #[must_use]
    pub fn reuse_port(mut self) -> Self {
        self.reuse_port = true;
        self
    }

    /// Sets `TCP_DEFER_ACCEPT`: a connection is only queued when data has come.
    #[must_use]
    pub fn defer_accept(mut self, seconds: u32) -> Self {
        self.defer_accept_secs = Some(seconds);
        self
    }

    /// Sets `TCP_FASTOPEN` with this many pending requests. The namespace's
    /// `net.ipv4.tcp_fastopen` must allow servers (bit 1).
    #[must_use]
    pub fn fast_open(mut self, pending: u32) -> Self {
        self.fast_open = Some(pending);
        self
    }

    /// Makes it an MPTCP listener (since 5.6). The inode is that of its TCP subflow as well, which
    /// has the queue and the drops.
    #[must_use]
    pub fn mptcp(mut self) -> Self {
        self.mptcp = true;
        self
    }

    /// Opens the listener in `ns`.
    ///
    /// # Errors
    /// When a socket call fails, or the namespace's `somaxconn` cuts the backlog.
    pub fn open(self, ns: &Ns) -> Result<Listener> {
        let largest = ns.read_sysctl("net.core.somaxconn")?;
        let largest: u32 = largest.parse().context("read net.core.somaxconn")?;
        ensure!(
            u32::from(self.backlog) <= largest,
            "a backlog of {} is above net.core.somaxconn, {largest}",
            self.backlog
        );
        let socket = ns.run(|| self.open_here())?;
        let address = socket.local_addr().context("read the listener's address")?;
        let status = std::fs::File::from(socket.as_fd().try_clone_to_owned()?).metadata();
        let inode = status.context("read the listener's inode")?.ino();
        Ok(Listener {
            ns: ns.clone(),
            socket,
            address,
            backlog: self.backlog,
            inode,
        })
    }

    fn open_here(self) -> Result<TcpListener> {
        let protocol = if self.mptcp {
            libc::IPPROTO_MPTCP
        } else {
            libc::IPPROTO_TCP
        };
        let fd = options::stream(self.address, protocol).context("open a socket")?;
        setsockopt(&fd, sockopt::ReuseAddr, &true).context("set SO_REUSEADDR")?;
        if let Some(only) = self.v6only {
            setsockopt(&fd, sockopt::Ipv6V6Only, &only).context("set IPV6_V6ONLY")?;
        }
        if self.reuse_port {
            setsockopt(&fd, sockopt::ReusePort, &true).context("set SO_REUSEPORT")?;
        }
        if let Some(seconds) = self.defer_accept_secs {
            options::set(&fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
                .context("set TCP_DEFER_ACCEPT")?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(self.address))
            .with_context(|| format!("bind to {}", self.address))?;
        if let Some(pending) = self.fast_open {
            options::set(&fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, pending)
                .context("set TCP_FASTOPEN")?;
        }
        let backlog = Backlog::new(i32::from(self.backlog)).context("the backlog")?;
        listen(&fd, backlog).context("listen")?;
        Ok(fd.into())
    }
}

/// A listening socket in a namespace. It accepts nothing by itself.
#[derive(Debug)]
pub struct Listener {
    ns: Ns,
    socket: TcpListener,
    address: SocketAddr,
    backlog: u16,
    inode: u64,
}

impl Listener {
    /// A listener on `address`; port 0 lets the kernel choose.
    #[must_use]
    pub fn builder(address: SocketAddr) -> Builder {
        Builder {
            address,
            backlog: 128,
            v6only: None,
            reuse_port: false,
            defer_accept_secs: None,
            fast_open: None,
            mptcp: false,
        }
    }

    /// The namespace it listens in.
    #[must_use]
    pub fn ns(&self) -> &Ns {
        &self.ns
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An address of its own namespace at which it is reached.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            bound => bound,
        };
        SocketAddr::new(ip, self.port())
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The backlog given to `listen`.
    #[must_use]
    pub fn backlog(&self) -> u16 {
        self.backlog
    }

    /// How many connections fit its accept queue: `sk_acceptq_is_full` asks for more than the
    /// backlog.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        u32::from(self.backlog).saturating_add(1)
    }

    /// The inode number of its file, as in `/proc/net/tcp`.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// How many connections wait to be accepted now.
    ///
    /// # Errors
    /// When the tables of sockets cannot be read.
    pub fn queued(&self) -> Result<u32> {
        sockets::accept_queue(&self.ns, self.inode)
    }

    /// What `sock_diag` says of it: queue, backlog and `sk_drops`.
    ///
    /// # Errors
    /// When the kernel has no TCP diagnostics or does not list the listener.
    pub fn diag(&self) -> Result<ListenerState> {
        let all = diag::listeners(&self.ns)?;
        all.into_iter()
            .find(|state| u64::from(state.inode) == self.inode)
            .with_context(|| format!("find listener {} in sock_diag", self.address))
    }

    /// Accepts whatever waits in the queue, without waiting for more.
    ///
    /// # Errors
    /// When `accept` fails for another reason than an empty queue.
    pub fn accept_all(&self) -> Result<Vec<TcpStream>> {
        let mut accepted = Vec::new();
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => accepted.push(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(accepted),
                Err(error) => return Err(error).context("accept"),
            }
        }
    }

    /// Accepts one connection, waiting for it.
    ///
    /// # Errors
    /// When none comes within ten seconds, or `accept` fails.
    pub fn accept(&self) -> Result<TcpStream> {
        crate::witness::wait_for(PATIENCE, "a connection to accept", || {
            match self.socket.accept() {
                Ok((stream, _)) => Ok(Some(stream)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error).context("accept"),
            }
        })
    }

    /// Fills the accept queue from inside the listener's own namespace: see [`Listener::fill_from`].
    ///
    /// # Errors
    /// As [`Listener::fill_from`].
    pub fn fill(&self) -> Result<Vec<OwnedFd>> {
        self.fill_from(&self.ns, self.target())
    }

    /// Fills the accept queue with connections from `clients` to `target`, and drops nothing: as
    /// many as still fit, established before this returns. The queue stays full as long as
    /// nothing accepts; closing the returned sockets does not empty it.
    ///
    /// # Errors
    /// When the queue does not become full within ten seconds.
    pub fn fill_from(&self, clients: &Ns, target: SocketAddr) -> Result<Vec<OwnedFd>> {
        let free = self.capacity().saturating_sub(self.queued()?);
        let sockets = clients.run(|| {
            (0..free)
                .map(|_| connect_nonblocking(target))
                .collect::<Result<_>>()
        })?;
        let what = format!(
            "{} connections in the accept queue of {target}",
            self.capacity()
        );
        wait_until(PATIENCE, &what, || Ok(self.queued()? == self.capacity()))?;
        Ok(sockets)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
