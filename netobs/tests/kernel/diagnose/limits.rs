//! Faults of limits and ways: no way to a host, aborts on overflow, TIME_WAIT and connection tracking at
//! their limits.

use std::{net::SocketAddr, net::TcpStream, os::fd::OwnedFd};

use testbed::{
    Counters, Family, Hook, Listener, NetNs, RawPeer, Rule, connect_nonblocking, feature,
    only_where, require, rule::Select, scenario, wait_until,
};

use super::{Diagnosing, assert_says, comm, finding};
use crate::support::{PATIENCE, any};

/// Where nothing is ever asked to listen.
const CLOSED: u16 = 9;

#[test]
fn a_host_to_which_there_is_no_way_is_told() {
    require!(require::root(), require::command("ip"), require::tun());
    let ns = NetNs::new("noway").unwrap();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    let diagnosing = Diagnosing::start(&ns);
    for host in 2..6 {
        let target = SocketAddr::new(peer.address(host), CLOSED);
        let connecting = ns.spawn(move || TcpStream::connect(target).map(drop));
        let syn = peer
            .receive(PATIENCE, |segment| segment.destination == target)
            .unwrap();
        peer.send_unreachable(&syn).unwrap();
        // A soft error, which becomes the socket's when its SYN is due again.
        connecting.join().unwrap().unwrap_err();
    }
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "connect-unreachable");
    assert_eq!(found["events"], 4);
    assert_eq!(found["process"], comm().as_str());
    assert_says(found, "host unreachable 4, network unreachable 0");
}

#[test]
fn handshakes_that_a_full_queue_resets_are_found_with_the_setting() {
    require!(require::root(), require::command("ip"), require::tun());
    let ns = NetNs::new("aborts").unwrap();
    ns.sysctl("net.ipv4.tcp_abort_on_overflow", "1").unwrap();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    let builder = Listener::builder(any(Family::V4)).backlog(16);
    let listener = builder.open(&ns).unwrap();
    let diagnosing = Diagnosing::start(&ns);
    let acks = scenario::final_ack_overflow(&peer, &listener, 7, 1).unwrap();
    assert_eq!(acks.counted.get("TcpExt", "EmbryonicRsts"), 7);
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "handshakes-reset");
    assert_eq!(found["events"], 7);
    assert_says(found, "net.ipv4.tcp_abort_on_overflow");
    assert_says(found, &format!("port {}", listener.port()));
    drop(acks);
}

#[test]
fn connections_that_close_without_time_wait_are_found() {
    require!(require::root());
    let ns = NetNs::new("buckets").unwrap();
    ns.sysctl("net.ipv4.tcp_max_tw_buckets", "2").unwrap();
    let listener = Listener::builder("127.0.0.1:84".parse().unwrap())
        .open(&ns)
        .unwrap();
    let overflowed = || {
        let counters = Counters::read_in(&ns).unwrap();
        counters.get("TcpExt", "TCPTimeWaitOverflow")
    };
    let diagnosing = Diagnosing::start(&ns);
    for _ in 0..12 {
        let client = ns.run(|| TcpStream::connect(listener.address()).unwrap());
        let server = listener.accept().unwrap();
        drop(client); // the first to close has the TIME_WAIT
        drop(server);
    }
    wait_until(
        PATIENCE,
        "closes beyond the limit",
        || Ok(overflowed() >= 5),
    )
    .unwrap();
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "time-wait-overflow");
    assert_eq!(found["events"], overflowed());
    assert_says(found, "net.ipv4.tcp_max_tw_buckets");
}

/// The limit is the machine's: only where the machine is the test's own.
#[test]
fn a_full_connection_tracking_table_is_found() {
    only_where!(feature::guest());
    require!(require::root(), require::command("nft"));
    const MOST: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
    let ns = NetNs::new("tracks").unwrap();
    // A rule that asks for the state of a connection has it tracked.
    let tracking = Rule::drop_all(&ns, Hook::Input, Select::Invalid).unwrap();
    let before = std::fs::read_to_string(MOST).unwrap();
    std::fs::write(MOST, "20").unwrap();
    let listener = Listener::builder("127.0.0.1:85".parse().unwrap())
        .backlog(64)
        .open(&ns)
        .unwrap();
    let clients: Vec<OwnedFd> = ns.run(|| {
        let connect = |_| connect_nonblocking(listener.address()).unwrap();
        (0..20).map(connect).collect()
    });
    let (code, diagnosis) = Diagnosing::start(&ns).ends();
    std::fs::write(MOST, before.trim()).unwrap();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "conntrack-full");
    assert_eq!(found["netns"], ns.inode());
    assert_says(found, "of nf_conntrack_max 20");
    drop((clients, tracking));
}
