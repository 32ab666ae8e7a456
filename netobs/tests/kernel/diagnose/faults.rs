//! Faults of connections: overflows, lost SYNs, lost data, resets, ports, TIME_WAIT.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use testbed::{
    Counters, Family, Hook, Link, Listener, NetNs, RawPeer, Rule, connect_nonblocking,
    listener::abort, require, rule::Select, scenario, wait_until,
};

use super::{Diagnosing, assert_says, comm, finding, own};
use crate::support::{PATIENCE, any};

fn counted(ns: &NetNs, group: &str, name: &str) -> u64 {
    Counters::read_in(ns).unwrap().get(group, name)
}

fn linked(purpose: &str) -> (NetNs, NetNs, Link) {
    let (a, b) = (NetNs::new(purpose).unwrap(), NetNs::new("peer").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    (a, b, link)
}

#[test]
fn a_server_that_accepts_too_slowly_is_told_from_a_queue_that_is_too_short() {
    require!(require::root());
    let ns = NetNs::new("slowly").unwrap();
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(4);
    let listener = builder.open(&ns).unwrap();
    let diagnosing = Diagnosing::start(&ns);
    let clients: Vec<OwnedFd> = ns.run(|| {
        let connect = |_| connect_nonblocking(listener.address()).unwrap();
        (0..12).map(connect).collect()
    });
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(400));
        listener.accept().unwrap();
    }
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "accept-queue-overflow");
    assert_says(found, "the process accepts too slowly");
    assert_says(found, &format!("port {}", listener.port()));
    assert_eq!(found["process"], comm().as_str());
    assert!(
        !found["stories"].as_array().unwrap().is_empty(),
        "{found:#}"
    );
    drop(clients);
}

#[test]
fn a_queue_that_does_not_overflow_but_waits_for_seconds_is_found() {
    require!(require::root());
    let ns = NetNs::new("waits").unwrap();
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(64);
    let listener = builder.open(&ns).unwrap();
    let diagnosing = Diagnosing::start(&ns);
    let clients: Vec<OwnedFd> = ns.run(|| {
        let connect = |_| connect_nonblocking(listener.address()).unwrap();
        (0..9).map(connect).collect()
    });
    thread::sleep(Duration::from_millis(1_200));
    assert_eq!(listener.accept_all().unwrap().len(), 9);
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "accept-slow");
    assert_eq!(found["events"], 9);
    assert_eq!(found["process"], comm().as_str());
    drop(clients);
}

#[test]
fn a_short_queue_before_a_prompt_server_is_blamed_on_its_limit() {
    require!(require::root());
    let ns = NetNs::new("short").unwrap();
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(3);
    let diagnosing = Diagnosing::start(&ns);
    // Its listen() is seen: what it asked for is known.
    let listener = builder.open(&ns).unwrap();
    for _ in 0..10 {
        let clients = ns.run(|| {
            let connect = |_| connect_nonblocking(listener.address()).unwrap();
            (0..5).map(connect).collect::<Vec<_>>()
        });
        drop(listener.accept_all().unwrap());
        clients.into_iter().for_each(|it| abort(it).unwrap());
    }
    let dropped = counted(&ns, "TcpExt", "ListenDrops");
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "accept-queue-overflow");
    assert_eq!(found["events"], dropped);
    assert_says(found, "the process accepts promptly");
    assert_says(found, "the listen() argument binds");
}

#[test]
fn lost_syns_show_as_connects_of_a_second() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let (a, b, link) = linked("late");
    let address = link.b.address(Family::V4, 82);
    let listener = Listener::builder(address).open(&b).unwrap();
    let diagnosing = Diagnosing::start(&a);
    let silence = Rule::drop_all(&b, Hook::Input, Select::To(82)).unwrap();
    let clients: Vec<OwnedFd> = a.run(|| {
        let connect = |_| connect_nonblocking(address).unwrap();
        (0..6).map(connect).collect()
    });
    wait_until(PATIENCE, "six lost SYNs", || Ok(silence.dropped()? >= 6)).unwrap();
    silence.remove().unwrap();
    wait_until(PATIENCE, "six late connections", || {
        Ok(listener.queued()? == 6)
    })
    .unwrap();
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "connect-slow");
    assert_eq!(found["events"], 6);
    assert_eq!(found["process"], comm().as_str());
    assert_says(found, "6 took about 1 s");
    assert_says(found, &format!("one peer only: {}", address.ip()));
    assert_eq!(found["stories"].as_array().unwrap().len(), 3, "{found:#}");
    drop(clients);
}

#[test]
fn connects_into_a_blackhole_are_told_with_their_peer() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let (a, b, link) = linked("hole");
    let address = link.b.address(Family::V4, 9);
    let _silence = Rule::drop_all(&b, Hook::Input, Select::To(9)).unwrap();
    let diagnosing = Diagnosing::start(&a);
    a.run(|| {
        for _ in 0..4 {
            TcpStream::connect_timeout(&address, Duration::from_millis(700)).unwrap_err();
        }
    });
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "connect-timeout");
    assert_eq!(found["events"], 4);
    assert_eq!(found["severity"], "critical");
    assert_eq!(found["process"], comm().as_str());
    assert_says(
        found,
        "4 were closed by the process while the SYN was unanswered",
    );
}

#[test]
fn connects_that_hang_are_told_before_they_time_out() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let (a, b, link) = linked("hang");
    let address = link.b.address(Family::V4, 9);
    let _silence = Rule::drop_all(&b, Hook::Input, Select::To(9)).unwrap();
    let diagnosing = Diagnosing::start(&a);
    let sockets: Vec<OwnedFd> = a.run(|| {
        let connect = |_| connect_nonblocking(address).unwrap();
        (0..5).map(connect).collect()
    });
    wait_until(PATIENCE, "five SYNs sent again", || {
        Ok(counted(&a, "TcpExt", "TCPSynRetrans") >= 5)
    })
    .unwrap();
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "connect-timeout");
    assert_eq!(found["events"], 5);
    assert_says(found, "5 still wait after their SYN was sent again");
    drop(sockets);
}

/// Data over a link that loses some of it; how many segments were sent again.
fn lose(link: &Link) -> u64 {
    let lost = scenario::lossy_transfer(link, Family::V4, 12_000_000, 8).unwrap();
    lost.retransmitted.into()
}

#[test]
fn one_peer_that_is_ill_is_told_from_a_path_that_loses() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let (a, _b, link) = linked("lossy");
    let diagnosing = Diagnosing::start(&a);
    let sent_again = lose(&link);
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "retransmissions");
    assert_eq!(found["events"], sent_again);
    assert_says(found, &format!("all go to one peer, {}", link.b.v4()));
    assert_says(found, "within 100 ms, at ");

    let peers: Vec<NetNs> = (0..3).map(|_| NetNs::new("many").unwrap()).collect();
    let links = peers.iter().map(|peer| Link::veth(&a, peer).unwrap());
    let links: Vec<Link> = links.collect();
    let diagnosing = Diagnosing::start(&a);
    let sent_again: u64 = links.iter().map(lose).sum();
    let (_, diagnosis) = diagnosing.ends();
    let found = finding(&diagnosis, "retransmissions");
    assert_eq!(found["events"], sent_again);
    assert_says(found, "3 peers are concerned and none has most of it");
}

#[test]
fn resets_of_connections_in_use_are_told_by_peer() {
    require!(require::root());
    let ns = NetNs::new("rst").unwrap();
    let listener = Listener::builder("127.0.0.1:80".parse().unwrap())
        .open(&ns)
        .unwrap();
    let diagnosing = Diagnosing::start(&ns);
    for round in 0..7_u64 {
        let mut client = ns.run(|| TcpStream::connect(listener.address()).unwrap());
        let mut server = listener.accept().unwrap();
        client.write_all(b"question").unwrap();
        let mut question = [0; 8];
        server.read_exact(&mut question).unwrap();
        // At no regular pace.
        thread::sleep(Duration::from_millis(10 + round * round * 9));
        abort(client).unwrap();
        let gone = || Ok(server.take_error()?.is_some());
        wait_until(PATIENCE, "the reset", gone).unwrap();
    }
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "resets-received");
    assert_eq!(found["events"], 7);
    assert_says(found, "7 by 127.0.0.1");
    // The other end is here as well.
    assert_eq!(finding(&diagnosis, "resets-sent")["events"], 7);
}

#[test]
fn a_client_without_free_ports_is_told_with_the_range() {
    require!(require::root());
    let ns = NetNs::new("ports").unwrap();
    ns.sysctl("net.ipv4.ip_local_port_range", "50000 50003")
        .unwrap();
    let address: SocketAddr = "127.0.0.1:83".parse().unwrap();
    let listener = Listener::builder(address).open(&ns).unwrap();
    let diagnosing = Diagnosing::start(&ns);
    let (open, failed): (Vec<_>, Vec<_>) = ns.run(|| {
        let tries = (0..9).map(|_| TcpStream::connect(address));
        tries.partition(Result::is_ok)
    });
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "local-ports-exhausted");
    assert_eq!(found["events"], failed.len());
    assert_eq!(found["process"], comm().as_str());
    assert_says(
        found,
        "net.ipv4.ip_local_port_range 50000 to 50003, 4 ports",
    );
    drop((open, listener));
}

#[test]
fn a_time_wait_socket_in_the_way_of_syns_is_found() {
    require!(require::root(), require::command("ip"), require::tun());
    let ns = NetNs::new("paws").unwrap();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    let listener = Listener::builder(any(Family::V4)).open(&ns).unwrap();
    let diagnosing = Diagnosing::start(&ns);
    scenario::syns_before_time_wait(&peer, &listener, 4).unwrap();
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = own(&diagnosis)
        .into_iter()
        .find(|finding| finding["id"] == "syn-time-wait" || finding["id"] == "paws-refused");
    let found = found.unwrap_or_else(|| panic!("{diagnosis:#}"));
    assert_eq!(found["events"], 4);
    assert_eq!(found["netns"], ns.inode());
}

#[test]
fn a_full_syn_queue_is_found_with_and_without_cookies() {
    require!(require::root(), require::command("ip"), require::tun());
    for cookies in [false, true] {
        let ns = NetNs::new("syns").unwrap();
        let peer = RawPeer::new(&ns, Family::V4).unwrap();
        let listener = Listener::builder(any(Family::V4))
            .backlog(4)
            .open(&ns)
            .unwrap();
        let value = if cookies { "1" } else { "0" };
        ns.sysctl("net.ipv4.tcp_syncookies", value).unwrap();
        let diagnosing = Diagnosing::start(&ns);
        for port in 9000..9040 {
            peer.client(port, listener.port()).syn().unwrap();
        }
        let (code, diagnosis) = diagnosing.ends();
        assert_eq!(code, 3);
        let (id, counter) = if cookies {
            ("syn-cookies", "SyncookiesSent")
        } else {
            ("syn-queue-full", "TCPReqQFullDrop")
        };
        let found = finding(&diagnosis, id);
        assert_eq!(
            found["events"],
            counted(&ns, "TcpExt", counter),
            "{found:#}"
        );
    }
}

#[test]
fn bursts_have_their_time() {
    require!(require::root());
    let ns = NetNs::new("burst").unwrap();
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(2);
    let listener = builder.open(&ns).unwrap();
    listener.fill().unwrap();
    let diagnosing = Diagnosing::start(&ns);
    scenario::overflow_syns(&listener, 200).unwrap();
    let (_, diagnosis) = diagnosing.ends();
    let found = finding(&diagnosis, "accept-queue-overflow");
    assert_eq!(found["events"], 200);
    assert_says(found, "drops within 100 ms, at ");
}
