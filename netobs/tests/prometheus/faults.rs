//! What goes wrong on purpose, in namespaces of its own.

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    time::Duration,
};

use testbed::{
    Family, Link, Listener, NetNs, RawClient, RawPeer,
    dns::{self, NameServer},
    scenario, wait_until,
};

use crate::{PATIENCE, support::any};

/// A listener whose settings cut its queue, full, a link on which packets are lost, and a name server
/// that is late or silent.
pub(crate) struct Faults {
    names: NameServer,
    link: Link,
    listener: Listener,
    _queued: Vec<OwnedFd>,
    pod: NetNs,
    peer: NetNs,
    /// Where clients speak without a kernel.
    pub(crate) raw: NetNs,
}

impl Faults {
    /// What has to be there before the agent: it audits at its start.
    pub(crate) fn prepare() -> Self {
        let (pod, peer) = (NetNs::new("pod").unwrap(), NetNs::new("peer").unwrap());
        pod.sysctl("net.core.somaxconn", "8").unwrap();
        pod.sysctl("net.ipv4.tcp_timestamps", "0").unwrap();
        let link = Link::veth(&pod, &peer).unwrap();
        let listener = Listener::builder(any(Family::V4))
            .backlog(8)
            .open(&pod)
            .unwrap();
        let queued = listener.fill().unwrap();
        Self {
            names: NameServer::open(&pod, [127, 0, 0, 1].into()).unwrap(),
            link,
            listener,
            _queued: queued,
            pod,
            peer,
            raw: NetNs::new("raw").unwrap(),
        }
    }

    /// Handshakes that nobody finishes: they wait in a SYN queue, and their SYN-ACKs are sent again.
    pub(crate) fn half_open<'peer>(
        &self,
        peer: &'peer RawPeer,
    ) -> (Listener, Vec<RawClient<'peer>>) {
        let address = SocketAddr::new(peer.host(), 0);
        let listener = Listener::builder(address).open(&self.raw).unwrap();
        let begin = |port| {
            let mut client = peer.client(port, listener.port());
            client.half_open(PATIENCE).unwrap();
            client
        };
        let clients = (3000..3005).map(begin).collect();
        (listener, clients)
    }

    /// Overflows, SYNs that nobody answers, and segments that cannot be sent.
    pub(crate) fn commit(&self) {
        scenario::overflow_syns(&self.listener, 50).unwrap();
        scenario::syn_blackhole(&self.link, Family::V4, 40, 1).unwrap();
        scenario::failing_sends(&self.link, Family::V4, 5, 1).unwrap();
        self.connect();
        self.look_up();
    }

    /// Lookups of which most are answered late and some never.
    fn look_up(&self) {
        let socket = self.pod.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(self.names.address()).unwrap();
            socket
        });
        let before = self.names.queries();
        let ask = |ids: std::ops::Range<u16>, name: &str| {
            let send = |id| socket.send(&dns::query(id, name, 1)).unwrap();
            ids.for_each(|id| {
                send(id);
            });
        };
        ask(0..5, "ok.example");
        socket.send(b"short").unwrap(); // no DNS message
        ask(100..105, "never.example");
        ask(200..260, "late.example");
        wait_until(PATIENCE, "the name server to have them", || {
            Ok(self.names.queries() >= before + 70)
        })
        .unwrap();
        std::thread::sleep(Duration::from_millis(700)); // how late they are
        self.names.release().unwrap();
    }

    /// Connections that are taken after a while, and some that are refused: nobody listens on port 9.
    fn connect(&self) {
        let server = Listener::builder(any(Family::V4))
            .backlog(8)
            .open(&self.pod)
            .unwrap();
        let target = server.target();
        let clients = self.pod.run(|| {
            let refused = || TcpStream::connect("127.0.0.1:9").unwrap_err();
            (0..10).for_each(|_| drop(refused()));
            let connected = (0..5).map(|_| TcpStream::connect(target).unwrap());
            connected.collect::<Vec<_>>()
        });
        std::thread::sleep(Duration::from_millis(20));
        let taken: Vec<_> = clients.iter().map(|_| server.accept().unwrap()).collect();
        drop((taken, clients));
    }

    /// More listeners than a cap of one has room for.
    pub(crate) fn more_listeners(&self) -> Vec<Listener> {
        let open = || Listener::builder(any(Family::V4)).open(&self.peer).unwrap();
        (0..3).map(|_| open()).collect()
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults")
            .field("pod", &self.pod.name())
            .finish()
    }
}
