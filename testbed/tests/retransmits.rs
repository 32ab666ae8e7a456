//! Segments sent again, against the kernel's own counters.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use testbed::{Counters, Family, Link, Listener, NetNs, RawPeer, link::Offload, require, scenario};

fn linked() -> (NetNs, NetNs, Link) {
    let (a, b) = (NetNs::new("ra").unwrap(), NetNs::new("rb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    (a, b, link)
}

#[test]
fn swallowed_syns_are_sent_again() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let (_a, _b, link) = linked();
    for family in [Family::V4, Family::V6] {
        let counted = scenario::syn_blackhole(&link, family, 20, 1).unwrap();
        assert_eq!(counted.get("TcpExt", "TCPSynRetrans"), 20);
        assert_eq!(counted.get("Tcp", "RetransSegs"), 20);
        assert_eq!(counted.get("TcpExt", "TCPRetransFail"), 0);
    }
}

#[test]
fn swallowed_syns_are_sent_again_twice() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let (_a, _b, link) = linked();
    let counted = scenario::syn_blackhole(&link, Family::V4, 5, 2).unwrap();
    assert_eq!(counted.get("Tcp", "RetransSegs"), 10);
}

#[test]
fn unanswered_syn_acks_are_sent_again() {
    require!(require::root(), require::command("ip"), require::tun());
    for family in [Family::V4, Family::V6] {
        let ns = NetNs::new("synack").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let address = std::net::SocketAddr::new(peer.host(), 0);
        let listener = Listener::builder(address).backlog(100).open(&ns).unwrap();
        let counted = scenario::syn_ack_retransmits(&peer, &listener, 40, 1).unwrap();
        assert_eq!(counted.get("Tcp", "RetransSegs"), 40);
        assert_eq!(counted.get("TcpExt", "ListenDrops"), 0);
        assert_eq!(listener.diag().unwrap().drops, 40, "one for each RST");
    }
}

#[test]
fn sends_that_fail_locally_are_counted_twice() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let (a, _b, link) = linked();
    let probes = a.read_sysctl("net.ipv4.tcp_early_retrans").unwrap();
    for (family, n, rounds) in [(Family::V4, 10, 1), (Family::V6, 5, 2)] {
        let counted = scenario::failing_sends(&link, family, n, rounds).unwrap();
        let want = u64::from(n) * u64::from(rounds);
        assert_eq!(counted.get("TcpExt", "TCPRetransFail"), want);
        assert_eq!(counted.get("Tcp", "RetransSegs"), want);
    }
    assert_eq!(a.read_sysctl("net.ipv4.tcp_early_retrans").unwrap(), probes);
}

#[test]
fn sends_without_a_route_are_not_counted() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let (_a, _b, link) = linked();
    for family in [Family::V4, Family::V6] {
        let counted = scenario::unroutable_sends(&link, family, 6).unwrap();
        assert_eq!(counted.get("TcpExt", "TCPTimeouts"), 6);
        assert_eq!(counted.get("Tcp", "RetransSegs"), 0);
        // The link works again.
        scenario::lossy_transfer(&link, family, 1000, 1000).unwrap();
    }
}

fn lossy(family: Family, joined: bool) {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let (a, _b, link) = linked();
    if !joined {
        link.a.set_offload(Offload::Tso, false).unwrap();
        link.a.set_offload(Offload::Gso, false).unwrap();
    }
    let before = Counters::read_in(&a).unwrap();
    let transfer = scenario::lossy_transfer(&link, family, 4 << 20, 30).unwrap();
    let delta = Counters::read_in(&a).unwrap().since(&before);
    assert!(
        transfer.dropped > 0 && transfer.retransmitted > 0,
        "{transfer:?}"
    );
    let retransmitted = u64::from(transfer.retransmitted);
    assert_eq!(delta.get("Tcp", "RetransSegs"), retransmitted, "{delta}");
    assert_eq!(delta.get("TcpExt", "TCPSynRetrans"), 0);
    if joined {
        assert!(
            retransmitted > transfer.dropped,
            "lost buffers of many segments: {transfer:?}"
        );
    }
}

#[test]
fn a_lossy_transfer_over_ipv4() {
    lossy(Family::V4, true);
}

#[test]
fn a_lossy_transfer_over_ipv6_in_single_segments() {
    lossy(Family::V6, false);
}
