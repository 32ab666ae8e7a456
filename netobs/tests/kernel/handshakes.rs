//! Handshakes that fail in other ways than a SYN on a full queue, and packets that a listener drops
//! without having dropped a connection.

use std::net::{IpAddr, SocketAddr};

use testbed::{
    Family, Listener, NetNs, RawClient, RawPeer, raw::Flags, require, scenario, wait_until,
    witness::sockets,
};

use crate::support::{
    Agent, Ledger, Metrics, PATIENCE, any,
    books::{DROPS, OVERFLOWS, drops_are, gauge},
};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A namespace with a listener, reached by hand-written packets.
struct Bench {
    ns: NetNs,
    peer: RawPeer,
    listener: Listener,
}

impl Bench {
    fn new(family: Family, backlog: u16) -> Self {
        let ns = NetNs::new("hands").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let builder = Listener::builder(any(family)).backlog(backlog);
        let listener = builder.open(&ns).unwrap();
        Self { ns, peer, listener }
    }

    fn half_open(&self, ports: std::ops::Range<u16>) -> Vec<RawClient<'_>> {
        let open = |port| {
            let mut client = self.peer.client(port, self.listener.port());
            client.half_open(PATIENCE).unwrap();
            client
        };
        ports.map(open).collect()
    }

    fn embryos(&self) -> usize {
        sockets::embryos(&self.ns, self.listener.port()).unwrap()
    }

    fn balanced(&self, agent: &Agent) -> Metrics {
        Ledger::from_birth(&self.ns).balanced(agent)
    }

    fn drops(&self, metrics: &Metrics) -> u64 {
        metrics.sum(DROPS, &[("netns", &self.ns.inode())])
    }
}

#[test]
fn final_acks_on_a_full_queue_count_each_time() {
    require!(require::root(), require::command("ip"), require::tun());
    for (family, embryos, repeats) in [(Family::V4, 4, 3), (Family::V6, 5, 2)] {
        let agent = Agent::shared();
        let bench = Bench::new(family, 8);
        let acks = scenario::final_ack_overflow(&bench.peer, &bench.listener, embryos, repeats);
        let acks = acks.unwrap();
        let n = u64::from(embryos) * u64::from(repeats);
        let metrics = bench.balanced(agent);
        drops_are(
            &metrics,
            &bench.listener,
            &[("ack", "accept_queue_full", n)],
        );
        let stage: crate::support::metrics::Labels<'_> =
            &[("netns", &bench.ns.inode()), ("stage", &"ack")];
        assert_eq!(metrics.sum(OVERFLOWS, stage), n);
        assert_eq!(
            gauge(&metrics, "netobs_tcp_syn_queue_length", &bench.listener),
            f64::from(embryos)
        );
        // SYNs on top of it are told apart.
        scenario::overflow_syns(&bench.listener, 6).unwrap();
        let want = [
            ("ack", "accept_queue_full", n),
            ("syn", "accept_queue_full", 6),
        ];
        drops_are(&bench.balanced(agent), &bench.listener, &want);
        drop(acks);
    }
}

#[test]
fn packets_that_are_no_connections_are_not_counted() {
    require!(require::root(), require::command("ip"), require::tun());
    for family in FAMILIES {
        let agent = Agent::shared();
        let bench = Bench::new(family, 8);
        let embryos = bench.half_open(2000..2004);
        embryos.iter().for_each(|client| client.syn().unwrap());
        let far = |client: &RawClient<'_>| client.ack_out_of_window().unwrap();
        embryos.iter().for_each(far);
        embryos[..2].iter().for_each(|client| client.rst().unwrap());
        let stranger = bench.peer.client(3000, bench.listener.port());
        for flags in [Flags::RST, Flags::FIN, Flags::ACK] {
            (0..5).for_each(|_| stranger.stray(flags).unwrap());
        }
        let before = bench.listener.diag().unwrap().drops;
        assert_eq!(
            before,
            4 + 4 + 2 + 5 + 5,
            "the packets were dropped by the listener"
        );
        assert_eq!(bench.drops(&bench.balanced(agent)), 0);

        // Among them, real ones.
        bench.listener.fill().unwrap();
        for port in 4000..4007 {
            bench
                .peer
                .client(port, bench.listener.port())
                .syn()
                .unwrap();
            stranger.stray(Flags::RST).unwrap();
            embryos[2].ack_out_of_window().unwrap();
        }
        (0..3).for_each(|_| embryos[3].ack().unwrap());
        let want = [
            ("ack", "accept_queue_full", 3),
            ("syn", "accept_queue_full", 7),
        ];
        drops_are(&bench.balanced(agent), &bench.listener, &want);
    }
}

#[test]
fn cookies_of_a_full_queue_are_overflows() {
    require!(require::root(), require::command("ip"), require::tun());
    for family in FAMILIES {
        let agent = Agent::shared();
        let bench = Bench::new(family, 2);
        bench.ns.sysctl("net.ipv4.tcp_syncookies", "2").unwrap();
        // The queue holds three; the cookies of the others come back in vain.
        let clients = bench.half_open(7000..7008);
        clients.iter().for_each(|client| client.ack().unwrap());
        assert_eq!(bench.embryos(), 0);
        let metrics = bench.balanced(agent);
        assert_eq!(bench.drops(&metrics), 5);
        let full: crate::support::metrics::Labels<'_> = &[
            ("netns", &bench.ns.inode()),
            ("reason", &"accept_queue_full"),
        ];
        assert_eq!(metrics.sum(DROPS, full), 5, "{}", metrics.text);
        let syns: crate::support::metrics::Labels<'_> =
            &[("netns", &bench.ns.inode()), ("stage", &"syn")];
        assert_eq!(metrics.sum(DROPS, syns), 0, "{}", metrics.text);

        // Made up cookies are no connections of anybody.
        let liar = bench.peer.client(7100, bench.listener.port());
        (0..4).for_each(|_| liar.stray(Flags::ACK).unwrap());
        let metrics = bench.balanced(agent);
        assert_eq!(bench.drops(&metrics), 5);
    }
}

#[test]
fn aborted_overflows_count_as_well() {
    require!(require::root(), require::command("ip"), require::tun());
    for family in FAMILIES {
        let agent = Agent::shared();
        let bench = Bench::new(family, 2);
        bench
            .ns
            .sysctl("net.ipv4.tcp_abort_on_overflow", "1")
            .unwrap();
        let acks = scenario::final_ack_overflow(&bench.peer, &bench.listener, 2, 1).unwrap();
        assert_eq!(acks.counted.get("TcpExt", "EmbryonicRsts"), 2);
        let want = [("ack", "accept_queue_full", 2)];
        drops_are(&bench.balanced(agent), &bench.listener, &want);
    }
}

#[test]
fn a_deferred_accept_drops_nothing() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::shared();
    let ns = NetNs::new("defer").unwrap();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    let builder = Listener::builder(any(Family::V4)).defer_accept(10);
    let listener = builder.open(&ns).unwrap();
    let mut client = peer.client(8000, listener.port());
    client.half_open(PATIENCE).unwrap();
    client.ack().unwrap();
    assert_eq!(listener.diag().unwrap().drops, 1);
    let metrics = Ledger::from_birth(&ns).balanced(agent);
    drops_are(&metrics, &listener, &[]);
    client.data(b"now").unwrap();
    wait_until(PATIENCE, "the connection", || Ok(listener.queued()? == 1)).unwrap();
    Ledger::from_birth(&ns).balanced(agent);
}

#[test]
fn syns_to_many_are_dropped_for_another_reason() {
    require!(require::root(), require::command("ip"), require::tun());
    let group: IpAddr = "ff02::1".parse().unwrap();
    for family in FAMILIES {
        let agent = Agent::shared();
        let bench = Bench::new(family, 8);
        let to = match family {
            Family::V4 => bench.peer.address(255),
            Family::V6 => group,
        };
        let remote = SocketAddr::new(to, bench.listener.port());
        for port in 6000..6009 {
            let local = SocketAddr::new(bench.peer.address(2), port);
            bench.peer.client_from(local, remote).syn().unwrap();
        }
        let want = [("syn", "other", 9)];
        drops_are(&bench.balanced(agent), &bench.listener, &want);
    }
}

#[test]
fn handshakes_that_icmp_ends_are_dropped_for_another_reason() {
    require!(require::root(), require::command("ip"), require::tun());
    for family in FAMILIES {
        let agent = Agent::shared();
        let bench = Bench::new(family, 8);
        for port in 5000..5005 {
            let mut client = bench.peer.client(port, bench.listener.port());
            let answer = client.half_open(PATIENCE).unwrap();
            bench.peer.send_unreachable(&answer).unwrap();
        }
        wait_until(PATIENCE, "an empty SYN queue", || Ok(bench.embryos() == 0)).unwrap();
        let metrics = bench.balanced(agent);
        assert_eq!(bench.drops(&metrics), 5);
        let other: crate::support::metrics::Labels<'_> =
            &[("netns", &bench.ns.inode()), ("reason", &"other")];
        assert_eq!(metrics.sum(DROPS, other), 5, "{}", metrics.text);
    }
}

#[test]
fn a_full_syn_queue_is_told_from_a_full_accept_queue() {
    require!(require::root(), require::command("ip"), require::tun());
    for family in FAMILIES {
        let agent = Agent::shared();
        let bench = Bench::new(family, 4);
        bench.ns.sysctl("net.ipv4.tcp_syncookies", "0").unwrap();
        for port in 9000..9020 {
            bench
                .peer
                .client(port, bench.listener.port())
                .syn()
                .unwrap();
        }
        // How many fit is the kernel's affair: it changed by one after 5.10.
        let dropped = 20 - u64::try_from(bench.embryos()).unwrap();
        let metrics = bench.balanced(agent);
        drops_are(
            &metrics,
            &bench.listener,
            &[("syn", "syn_queue_full", dropped)],
        );
        assert_eq!(metrics.sum(OVERFLOWS, &[("netns", &bench.ns.inode())]), 0);
    }
}
