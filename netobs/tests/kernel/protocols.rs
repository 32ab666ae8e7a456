//! Listeners of other kinds: TCP Fast Open, MPTCP, groups whose members hand over what they had,
//! IPv4 on IPv6 sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use testbed::{
    Counters, Family, ListenGroup, Listener, NetNs, RawClient, RawPeer, feature, only_where,
    require, scenario, wait_until,
};

use crate::support::{
    Agent, Ledger, Metrics, PATIENCE, any,
    books::{DROPS, OVERFLOWS, SEGMENTS, drops_are, gauge},
    metrics::Labels,
};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const ENQUEUES: &str = "netobs_tcp_accept_queue_enqueues_total";

/// Drops and overflows of a namespace, whatever the labels besides.
fn sums(metrics: &Metrics, ns: &NetNs) -> [u64; 2] {
    let labels: Labels<'_> = &[("netns", &ns.inode())];
    [DROPS, OVERFLOWS].map(|family| metrics.sum(family, labels))
}

fn half_open(peer: &RawPeer, port: u16, from: u16, n: u16) -> Vec<RawClient<'_>> {
    let open = |local| {
        let mut client = peer.client(local, port);
        client.half_open(PATIENCE).unwrap();
        client
    };
    (from..from + n).map(open).collect()
}

#[test]
fn fast_open_children_fill_the_queue_and_what_follows_is_dropped() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::shared();
    for family in FAMILIES {
        let ns = NetNs::new("tfo").unwrap();
        // Server, without cookies.
        only_where!(feature::setting(&ns, "net.ipv4.tcp_fastopen"));
        ns.sysctl("net.ipv4.tcp_fastopen", "0x202").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let builder = Listener::builder(any(family)).backlog(2).fast_open(16);
        let listener = builder.open(&ns).unwrap();
        let open = |port| {
            let client = peer.client(port, listener.port());
            client.syn_data(b"early").unwrap();
            client
        };
        let children: Vec<_> = (2000..2003).map(open).collect();
        wait_until(PATIENCE, "a full accept queue", || {
            Ok(listener.queued()? == listener.capacity())
        })
        .unwrap();
        // Each is queued before its handshake is done: no drop so far.
        let before = Counters::read_in(&ns).unwrap();
        assert_eq!(before.get("TcpExt", "TCPFastOpenPassive"), 3);
        assert_eq!(before.get("TcpExt", "ListenDrops"), 0);
        for port in 2010..2017 {
            open(port);
        }
        // Their SYN-ACKs go unanswered: sent again by a timer of the child, not of the listener.
        let again = |least: u64| {
            wait_until(PATIENCE, "SYN-ACKs sent again", || {
                Ok(Counters::read_in(&ns)?.get("TcpExt", "TCPSynRetrans") >= least)
            })
            .unwrap();
        };
        again(3);
        // Ended, so that no more are sent while the books are looked at.
        children.iter().for_each(|child| child.rst().unwrap());
        let metrics = Ledger::from_birth(&ns).balanced(agent);
        drops_are(&metrics, &listener, &[("syn", "accept_queue_full", 7)]);
        assert_eq!(sums(&metrics, &ns), [7, 7]);
        let labels: Labels<'_> = &[
            ("netns", &ns.inode()),
            ("role", &"server"),
            ("port", &listener.port()),
            ("type", &"syn_ack"),
        ];
        assert!(metrics.sum(SEGMENTS, labels) >= 3, "{}", metrics.text);
        let enqueues: Labels<'_> = &[("netns", &ns.inode())];
        if metrics.all(ENQUEUES, enqueues).count() > 0 {
            assert_eq!(metrics.sum(ENQUEUES, enqueues), 3);
        }
    }
}

#[test]
fn more_fast_open_requests_than_allowed_are_ordinary_handshakes() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::shared();
    let ns = NetNs::new("tfomany").unwrap();
    only_where!(feature::setting(&ns, "net.ipv4.tcp_fastopen"));
    ns.sysctl("net.ipv4.tcp_fastopen", "0x202").unwrap();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    let builder = Listener::builder(any(Family::V4)).backlog(16).fast_open(2);
    let listener = builder.open(&ns).unwrap();
    for port in 2000..2006 {
        let client = peer.client(port, listener.port());
        client.syn_data(b"early").unwrap();
    }
    let counted = Counters::read_in(&ns).unwrap();
    let passed_over = counted.get("TcpExt", "TCPFastOpenListenOverflow");
    assert!(passed_over > 0, "{passed_over}");
    // An overflow of another queue than the one of `accept()`: no listen drop.
    let metrics = Ledger::from_birth(&ns).balanced(agent);
    drops_are(&metrics, &listener, &[]);
}

#[test]
fn mptcp_listeners_count_like_others() {
    require!(require::root(), require::command("ip"), require::tun());
    only_where!(feature::mptcp());
    let agent = Agent::shared();
    let group: IpAddr = "ff02::1".parse().unwrap();
    for family in FAMILIES {
        let ns = NetNs::new("mptcp").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let builder = Listener::builder(any(family)).backlog(4).mptcp();
        let listener = builder.open(&ns).unwrap();
        let acks = scenario::final_ack_overflow(&peer, &listener, 4, 2).unwrap();
        scenario::overflow_syns(&listener, 7).unwrap();
        // To many at once: dropped by the function that MPTCP has in front of TCP's.
        let to = match family {
            Family::V4 => peer.address(255),
            Family::V6 => group,
        };
        for port in 6000..6003 {
            let local = SocketAddr::new(peer.address(2), port);
            let remote = SocketAddr::new(to, listener.port());
            peer.client_from(local, remote).syn().unwrap();
        }
        let metrics = Ledger::from_birth(&ns).balanced(agent);
        // The last three come together with others of the same look: where drops are told by
        // looking, which of the SYNs were which is not known.
        assert_eq!(sums(&metrics, &ns), [18, 15]);
        let acked: Labels<'_> = &[("netns", &ns.inode()), ("stage", &"ack")];
        assert_eq!(metrics.sum(DROPS, acked), 8);
        assert_eq!(
            gauge(&metrics, "netobs_tcp_accept_queue_length", &listener),
            f64::from(listener.capacity())
        );
        drop(acks);
    }
}

#[test]
fn what_a_closing_group_member_hands_over_is_dropped_by_the_other() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::shared();
    for (family, address) in [(Family::V4, "0.0.0.0:0"), (Family::V6, "[::]:0")] {
        let ns = NetNs::new("migrate").unwrap();
        // 5.10 has the setting, and does not heed it.
        only_where!(
            feature::setting(&ns, "net.ipv4.tcp_migrate_req"),
            feature::counter(&ns, "TcpExt", "TCPMigrateReqSuccess")
        );
        ns.sysctl("net.ipv4.tcp_migrate_req", "1").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let mut group = ListenGroup::open(&ns, address.parse().unwrap(), 8, 2).unwrap();
        let port = group.members()[0].port();
        // Handshakes that the first one has begun; then the second is full, and the first closes.
        group.steer(0).unwrap();
        let clients = half_open(&peer, port, 2000, 5);
        group.steer(1).unwrap().fill().unwrap();
        group.close(0).unwrap();
        let before = Counters::read_in(&ns).unwrap();
        for _ in 0..2 {
            clients.iter().for_each(|client| client.ack().unwrap());
        }
        let counted = Counters::read_in(&ns).unwrap().since(&before);
        let dropped = counted.get("TcpExt", "ListenDrops");
        assert!(dropped > 0, "nothing was handed over: {counted}");
        let metrics = Ledger::from_birth(&ns).balanced(agent);
        let labels: Labels<'_> = &[
            ("netns", &ns.inode()),
            ("local_port", &port),
            ("stage", &"ack"),
            ("reason", &"accept_queue_full"),
        ];
        assert_eq!(metrics.sum(DROPS, labels), dropped, "{counted}");
    }
}

#[test]
fn final_acks_over_ipv4_on_an_ipv6_listener_count_once() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::shared();
    let ns = NetNs::new("mapped").unwrap();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    let address = "[::]:0".parse().unwrap();
    let builder = Listener::builder(address).backlog(3).v6only(false);
    let listener = builder.open(&ns).unwrap();
    let clients = half_open(&peer, listener.port(), 2000, 4);
    listener.fill().unwrap();
    for _ in 0..2 {
        clients.iter().for_each(|client| client.ack().unwrap());
    }
    let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.port()));
    scenario::overflow_syns_from(&ns, mapped, &listener, 6).unwrap();
    let metrics = Ledger::from_birth(&ns).balanced(agent);
    let want = [
        ("ack", "accept_queue_full", 8),
        ("syn", "accept_queue_full", 6),
    ];
    drops_are(&metrics, &listener, &want);
}
