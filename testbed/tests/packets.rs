//! Hand-written segments to a listener: what each costs its `sk_drops` and the ListenDrops.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use testbed::{
    Counters, Family, Listener, NetNs, RawClient, RawPeer,
    raw::Flags,
    require, wait_until,
    witness::{Delta, sockets, wait_counted},
};

const PATIENCE: Duration = Duration::from_secs(5);

struct Bench {
    ns: NetNs,
    peer: RawPeer,
    listener: Listener,
}

impl Bench {
    fn new(family: Family, backlog: u16) -> Self {
        let ns = NetNs::new("packets").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let address = SocketAddr::new(peer.host(), 0);
        let listener = Listener::builder(address)
            .backlog(backlog)
            .open(&ns)
            .unwrap();
        Self { ns, peer, listener }
    }

    fn half_open(&self, ports: std::ops::Range<u16>) -> Vec<RawClient<'_>> {
        ports
            .map(|port| {
                let mut client = self.peer.client(port, self.listener.port());
                client.half_open(PATIENCE).unwrap();
                client
            })
            .collect()
    }

    /// Growth of `sk_drops` and the counters over a step.
    fn step(&self, step: impl FnOnce()) -> (u32, Delta) {
        let (drops, before) = (self.drops(), Counters::read_in(&self.ns).unwrap());
        step();
        let delta = Counters::read_in(&self.ns).unwrap().since(&before);
        (self.drops().wrapping_sub(drops), delta)
    }

    fn drops(&self) -> u32 {
        self.listener.diag().unwrap().drops
    }

    /// A step that costs the listener this many `sk_drops` and no ListenDrops.
    fn costs(&self, drops: u32, what: &str, step: impl FnOnce()) {
        let (got, delta) = self.step(step);
        assert_eq!(
            (got, delta.get("TcpExt", "ListenDrops")),
            (drops, 0),
            "{what}: {delta}"
        );
    }
}

fn ledger(family: Family) {
    require!(require::root(), require::command("ip"), require::tun());
    let bench = Bench::new(family, 8);
    let embryos = bench.half_open(2000..2003);
    bench.costs(3, "duplicate SYNs", || {
        embryos.iter().for_each(|c| c.syn().unwrap());
    });
    let far = || embryos.iter().for_each(|c| c.ack_out_of_window().unwrap());
    bench.costs(3, "ACKs out of window", far);
    assert_eq!(
        sockets::embryos(&bench.ns, bench.listener.port()).unwrap(),
        3
    );
    bench.costs(2, "RSTs on embryos", || {
        embryos[..2].iter().for_each(|c| c.rst().unwrap());
    });
    assert_eq!(
        sockets::embryos(&bench.ns, bench.listener.port()).unwrap(),
        1
    );
    let stranger = bench.peer.client(3000, bench.listener.port());
    bench.costs(3, "stray RSTs", || {
        (0..3).for_each(|_| stranger.stray(Flags::RST).unwrap());
    });
    bench.costs(3, "stray FINs", || {
        (0..3).for_each(|_| stranger.stray(Flags::FIN).unwrap());
    });
    bench.costs(0, "stray ACKs", || {
        (0..3).for_each(|_| stranger.stray(Flags::ACK).unwrap());
    });
    bench.listener.fill().unwrap();
    let (drops, delta) = bench.step(|| {
        (4000..4004).for_each(|port| {
            bench
                .peer
                .client(port, bench.listener.port())
                .syn()
                .unwrap();
        });
    });
    assert_eq!(
        (drops, delta.get("TcpExt", "ListenDrops")),
        (4, 4),
        "{delta}"
    );
}

#[test]
fn the_ledger_of_a_listener_over_ipv4() {
    ledger(Family::V4);
}

#[test]
fn the_ledger_of_a_listener_over_ipv6() {
    ledger(Family::V6);
}

fn unreachable(family: Family) {
    require!(require::root(), require::command("ip"), require::tun());
    let bench = Bench::new(family, 8);
    let before = Counters::read_in(&bench.ns).unwrap();
    let port = bench.listener.port();
    for source in 5000..5003 {
        let mut client = bench.peer.client(source, port);
        let answer = client.half_open(PATIENCE).unwrap();
        bench.peer.send_unreachable(&answer).unwrap();
    }
    let delta = wait_counted(&bench.ns, &before, "TcpExt", "ListenDrops", 3, PATIENCE).unwrap();
    assert_eq!(delta.get("TcpExt", "ListenOverflows"), 0);
    assert_eq!(sockets::embryos(&bench.ns, port).unwrap(), 0);
}

#[test]
fn icmp_errors_end_handshakes_over_ipv4() {
    unreachable(Family::V4);
}

#[test]
fn icmp_errors_end_handshakes_over_ipv6() {
    unreachable(Family::V6);
}

fn to_many(family: Family, mptcp: bool, destination: impl FnOnce(&RawPeer) -> IpAddr) {
    require!(require::root(), require::command("ip"), require::tun());
    let ns = NetNs::new("many").unwrap();
    let peer = RawPeer::new(&ns, family).unwrap();
    let any = match family {
        Family::V4 => "0.0.0.0:0",
        Family::V6 => "[::]:0",
    };
    let mut builder = Listener::builder(any.parse().unwrap());
    if mptcp {
        builder = builder.mptcp();
    }
    let listener = builder.open(&ns).unwrap();
    let before = Counters::read_in(&ns).unwrap();
    let remote = SocketAddr::new(destination(&peer), listener.port());
    for port in 6000..6003 {
        let local = SocketAddr::new(peer.address(2), port);
        peer.client_from(local, remote).syn().unwrap();
    }
    let delta = Counters::read_in(&ns).unwrap().since(&before);
    let counted = ["ListenDrops", "ListenOverflows"].map(|name| delta.get("TcpExt", name));
    assert_eq!(
        (counted, listener.diag().unwrap().drops),
        ([3, 0], 3),
        "{delta}"
    );
}

#[test]
fn syns_to_a_broadcast_address_are_dropped() {
    to_many(Family::V4, false, |peer| peer.address(255));
}

#[test]
fn syns_to_a_group_address_are_dropped() {
    to_many(Family::V6, false, |_| "ff02::1".parse().unwrap());
}

#[test]
fn an_mptcp_listener_drops_them_as_well() {
    testbed::only_where!(testbed::feature::mptcp());
    to_many(Family::V4, true, |peer| peer.address(255));
    to_many(Family::V6, true, |_| "ff02::1".parse().unwrap());
}

#[test]
fn a_full_syn_queue_is_no_overflow() {
    require!(require::root(), require::command("ip"), require::tun());
    let bench = Bench::new(Family::V4, 4);
    bench.ns.sysctl("net.ipv4.tcp_syncookies", "0").unwrap();
    let (drops, delta) = bench.step(|| {
        for port in 9000..9012 {
            let client = bench.peer.client(port, bench.listener.port());
            client.syn().unwrap();
        }
    });
    // Up to 5.10 the queue is full with as many requests as the backlog, later with one more.
    let embryos = sockets::embryos(&bench.ns, bench.listener.port()).unwrap();
    assert!(matches!(embryos, 4 | 5), "{embryos} in the queue");
    let want = 12 - u64::try_from(embryos).unwrap();
    assert_eq!(
        (u64::from(drops), delta.get("TcpExt", "ListenDrops")),
        (want, want),
        "{delta}"
    );
    assert_eq!(delta.get("TcpExt", "TCPReqQFullDrop"), want, "{delta}");
    assert_eq!(delta.get("TcpExt", "ListenOverflows"), 0, "{delta}");
}

#[test]
fn cookies_leave_the_syn_queue_empty() {
    require!(require::root(), require::command("ip"), require::tun());
    let bench = Bench::new(Family::V4, 2);
    bench.ns.sysctl("net.ipv4.tcp_syncookies", "2").unwrap();
    let clients = bench.half_open(7000..7006);
    assert_eq!(
        sockets::embryos(&bench.ns, bench.listener.port()).unwrap(),
        0
    );
    let (drops, delta) = bench.step(|| clients.iter().for_each(|client| client.ack().unwrap()));
    assert_eq!(bench.listener.queued().unwrap(), 3);
    assert_eq!(
        (drops, delta.get("TcpExt", "ListenDrops")),
        (3, 3),
        "{delta}"
    );
}

#[test]
fn a_deferred_accept_waits_for_data() {
    require!(require::root(), require::command("ip"), require::tun());
    let ns = NetNs::new("defer").unwrap();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    let address = SocketAddr::new(peer.host(), 0);
    let listener = Listener::builder(address)
        .defer_accept(10)
        .open(&ns)
        .unwrap();
    let before = Counters::read_in(&ns).unwrap();
    let mut client = peer.client(8000, listener.port());
    client.half_open(PATIENCE).unwrap();
    client.ack().unwrap();
    let delta = Counters::read_in(&ns).unwrap().since(&before);
    assert_eq!(delta.get("TcpExt", "TCPDeferAcceptDrop"), 1, "{delta}");
    assert_eq!(
        (listener.queued().unwrap(), listener.diag().unwrap().drops),
        (0, 1)
    );
    client.data(b"now").unwrap();
    wait_until(PATIENCE, "the connection", || Ok(listener.queued()? == 1)).unwrap();
    client.fin().unwrap();
    assert_eq!(listener.accept_all().unwrap().len(), 1);
}
