//! Full accept queues, against the kernel's own counters.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::SocketAddr;

use testbed::{
    Counters, Family, Link, ListenGroup, Listener, NetNs, RawPeer, connect_nonblocking, require,
    scenario, wait_until, witness::sockets,
};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

fn any(family: Family) -> SocketAddr {
    match family {
        Family::V4 => "0.0.0.0:0".parse().unwrap(),
        Family::V6 => "[::]:0".parse().unwrap(),
    }
}

fn seven_syns(address: &str, v6only: Option<bool>) {
    require!(require::root());
    let ns = NetNs::new("syns").unwrap();
    let mut builder = Listener::builder(address.parse().unwrap()).backlog(8);
    if let Some(only) = v6only {
        builder = builder.v6only(only);
    }
    let listener = builder.open(&ns).unwrap();
    let clients = listener.fill().unwrap();
    assert_eq!((clients.len(), listener.queued().unwrap()), (9, 9));
    let counted = scenario::overflow_syns(&listener, 7).unwrap();
    assert_eq!(counted.get("TcpExt", "ListenDrops"), 7);
    assert_eq!(counted.get("TcpExt", "ListenOverflows"), 7);
    assert_eq!(counted.get("Tcp", "RetransSegs"), 0, "{counted}");
    let diag = listener.diag().unwrap();
    assert_eq!((diag.queued, diag.backlog, diag.drops), (9, 8, 7));
    assert_eq!(listener.accept_all().unwrap().len(), 9);
}

#[test]
fn seven_syns_over_ipv4() {
    seven_syns("127.0.0.1:0", None);
}

#[test]
fn seven_syns_over_ipv6() {
    seven_syns("[::1]:0", Some(true));
}

#[test]
fn seven_syns_to_a_dual_stack_listener() {
    seven_syns("[::]:0", Some(false));
}

#[test]
fn mapped_addresses_reach_a_dual_stack_listener() {
    require!(require::root());
    let ns = NetNs::new("mapped").unwrap();
    let listener = Listener::builder(any(Family::V6))
        .backlog(1)
        .v6only(false)
        .open(&ns)
        .unwrap();
    let target = SocketAddr::new("127.0.0.1".parse().unwrap(), listener.port());
    let _clients = listener.fill_from(&ns, target).unwrap();
    let counted = scenario::overflow_syns_from(&ns, target, &listener, 300).unwrap();
    assert_eq!(counted.get("TcpExt", "ListenDrops"), 300);
}

#[test]
fn overflow_over_a_veth_pair() {
    require!(require::root(), require::command("ip"));
    let (a, b) = (NetNs::new("va").unwrap(), NetNs::new("vb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    for family in [Family::V4, Family::V6] {
        let listener = Listener::builder(link.b.address(family, 0))
            .backlog(2)
            .open(&b)
            .unwrap();
        let _clients = listener.fill_from(&a, listener.address()).unwrap();
        let counted = scenario::overflow_syns_from(&a, listener.address(), &listener, 50).unwrap();
        assert_eq!(counted.get("TcpExt", "ListenDrops"), 50);
    }
}

fn final_acks(family: Family) {
    require!(require::root(), require::command("ip"), require::tun());
    let ns = NetNs::new("acks").unwrap();
    let peer = RawPeer::new(&ns, family).unwrap();
    let listener = Listener::builder(any(family)).backlog(8).open(&ns).unwrap();
    let acks = scenario::final_ack_overflow(&peer, &listener, 4, 2).unwrap();
    assert_eq!(acks.counted.get("TcpExt", "ListenDrops"), 8);
    assert_eq!(acks.counted.get("TcpExt", "ListenOverflows"), 8);
    // One of tcp_listendrop and one of the receive path for each ACK.
    assert_eq!(listener.diag().unwrap().drops, 16);
    // With room in the queue the same clients get in.
    assert_eq!(listener.accept_all().unwrap().len(), 9);
    acks.clients.iter().for_each(|client| client.ack().unwrap());
    wait_until(PATIENCE, "the late connections", || {
        Ok(listener.queued()? == 4)
    })
    .unwrap();
    assert_eq!(sockets::embryos(&ns, listener.port()).unwrap(), 0);
}

#[test]
fn final_acks_over_ipv4_count_each_time() {
    final_acks(Family::V4);
}

#[test]
fn final_acks_over_ipv6_count_each_time() {
    final_acks(Family::V6);
}

#[test]
fn an_overflow_that_aborts_resets_the_client() {
    require!(require::root(), require::command("ip"), require::tun());
    let ns = NetNs::new("abort").unwrap();
    ns.sysctl("net.ipv4.tcp_abort_on_overflow", "1").unwrap();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    let listener = Listener::builder(any(Family::V4))
        .backlog(2)
        .open(&ns)
        .unwrap();
    let acks = scenario::final_ack_overflow(&peer, &listener, 2, 1).unwrap();
    assert_eq!(acks.counted.get("TcpExt", "EmbryonicRsts"), 2);
    assert_eq!(sockets::embryos(&ns, listener.port()).unwrap(), 0);
}

#[test]
fn a_group_is_filled_member_by_member() {
    require!(require::root());
    let ns = NetNs::new("group").unwrap();
    let group = ListenGroup::open(&ns, "127.0.0.1:0".parse().unwrap(), 3, 3).unwrap();
    for (member, drops) in [(0_usize, 5_u32), (1, 6), (2, 7)] {
        let listener = group.steer(member).unwrap();
        listener.fill().unwrap();
        scenario::overflow_syns(listener, drops.into()).unwrap();
    }
    let drops: Vec<u32> = group
        .members()
        .iter()
        .map(|listener| listener.diag().unwrap().drops)
        .collect();
    assert_eq!(drops, [5, 6, 7]);
    group.spread().unwrap();
    let before = Counters::read_in(&ns).unwrap();
    let target = group.members()[0].target();
    ns.run(|| (0..10).try_for_each(|_| connect_nonblocking(target).map(drop)))
        .unwrap();
    wait_until(PATIENCE, "ten more drops", || {
        Ok(Counters::read_in(&ns)?
            .since(&before)
            .get("TcpExt", "ListenDrops")
            == 10)
    })
    .unwrap();
}

#[test]
fn a_queue_with_room_is_no_overflow() {
    require!(require::root());
    let ns = NetNs::new("room").unwrap();
    let listener = Listener::builder("127.0.0.1:0".parse().unwrap())
        .open(&ns)
        .unwrap();
    let error = scenario::overflow_syns(&listener, 1).unwrap_err();
    assert!(error.to_string().contains("holds 0 of 129"), "{error}");
}
