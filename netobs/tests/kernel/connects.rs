//! Outgoing handshakes: how many, how long, and why they failed.

use std::{
    io::ErrorKind,
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

use testbed::{
    Counters, Family, Hook, Link, Listener, NetNs, Ns, RawPeer, Rule, connect_nonblocking, require,
    rule::Select, wait_until,
};

use crate::support::{Agent, Metrics, PATIENCE, any, books, metrics::Labels};

const CONNECTS: &str = "netobs_tcp_connects_total";
const FAILURES: &str = "netobs_tcp_connect_failures_total";
const WAITING: &str = "netobs_tcp_connects_waiting";
const LATENCY_SUM: &str = "netobs_tcp_connect_latency_seconds_sum";
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A port on which nothing listens, below the ephemeral ones, so that it has a label.
const CLOSED: u16 = 9;

fn loopback(family: Family, port: u16) -> SocketAddr {
    match family {
        Family::V4 => SocketAddr::new([127, 0, 0, 1].into(), port),
        Family::V6 => SocketAddr::new([0, 0, 0, 0, 0, 0, 0, 1_u16].into(), port),
    }
}

/// The name of this process, as its sockets' owner.
fn comm() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    name.trim_end().to_owned()
}

fn linked() -> (NetNs, NetNs, Link) {
    let (a, b) = (NetNs::new("ca").unwrap(), NetNs::new("cb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    (a, b, link)
}

/// Scrapes until as many handshakes of a namespace have completed, and failed by each cause; nothing
/// may be counted beside them.
fn settled(agent: &Agent, ns: &Ns, completed: u64, failed: &[(&str, u64)]) -> Metrics {
    let netns = ns.inode();
    let all: u64 = failed.iter().map(|(_, count)| count).sum();
    let what = format!("{completed} connects and {all} failures in {}", ns.name());
    let metrics = agent.scrape_until(&what, |metrics| {
        metrics.sum(CONNECTS, &[("netns", &netns)]) >= completed
            && metrics.sum(FAILURES, &[("netns", &netns)]) >= all
    });
    assert_eq!(
        metrics.sum(CONNECTS, &[("netns", &netns)]),
        completed,
        "{}",
        metrics.text
    );
    assert_eq!(
        metrics.sum(FAILURES, &[("netns", &netns)]),
        all,
        "{}",
        metrics.text
    );
    for (error_type, count) in failed {
        let labels: Labels<'_> = &[
            ("netns", &netns),
            ("error_type", error_type),
            ("process", &comm()),
        ];
        assert_eq!(
            metrics.sum(FAILURES, labels),
            *count,
            "{error_type}: {}",
            metrics.text
        );
    }
    assert_eq!(
        metrics.sum(WAITING, &[("netns", &netns)]),
        0,
        "{}",
        metrics.text
    );
    metrics
}

fn counted(ns: &Ns, name: &str) -> u64 {
    Counters::read_in(ns).unwrap().get("Tcp", name)
}

#[test]
fn completed_and_refused_connects_are_counted_by_process_and_port() {
    require!(require::root());
    let agent = Agent::shared();
    for family in FAMILIES {
        let ns = NetNs::new("connects").unwrap();
        let listener = Listener::builder(loopback(family, 81)).open(&ns).unwrap();
        let (open, refused) = ns.run(|| {
            let open: Vec<_> = (0..17)
                .map(|_| TcpStream::connect(listener.address()).unwrap())
                .collect();
            let refused = (0..5)
                .map(|_| {
                    TcpStream::connect(loopback(family, CLOSED))
                        .unwrap_err()
                        .kind()
                })
                .collect::<Vec<_>>();
            (open, refused)
        });
        assert_eq!(refused, [ErrorKind::ConnectionRefused; 5]);
        // The kernel's own: what began, what failed.
        assert_eq!(counted(&ns, "ActiveOpens"), 22);
        assert_eq!(counted(&ns, "AttemptFails"), 5);
        let metrics = settled(agent, &ns, 17, &[("refused", 5)]);
        let netns = ns.inode();
        let to_listener: Labels<'_> = &[("netns", &netns), ("port", &81), ("process", &comm())];
        assert_eq!(metrics.sum(CONNECTS, to_listener), 17);
        let to_closed: Labels<'_> = &[("netns", &netns), ("port", &CLOSED)];
        assert_eq!(metrics.sum(FAILURES, to_closed), 5);
        let count = "netobs_tcp_connect_latency_seconds_count";
        assert_eq!(metrics.sum(count, to_listener), 17);
        drop(open);
    }
}

#[test]
fn a_connect_that_nobody_answers_waits_in_sight_and_then_times_out() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = Agent::shared();
    let (a, _b, link) = linked();
    a.sysctl("net.ipv4.tcp_syn_retries", "1").unwrap();
    let target = link.b.address(Family::V4, CLOSED);
    let _silence = Rule::drop_all(link.b.ns(), Hook::Input, Select::To(CLOSED)).unwrap();
    // A listener makes the namespace known at once. Else discovery would, every five seconds, and
    // before 6.5 the connects wait for three.
    let _known = Listener::builder(any(Family::V4)).open(&a).unwrap();
    books::settled(agent, &a);
    let sockets: Vec<OwnedFd> = a.run(|| {
        (0..3)
            .map(|_| connect_nonblocking(target).unwrap())
            .collect()
    });
    let netns = a.inode();
    let waiting: Labels<'_> = &[("netns", &netns), ("port", &CLOSED), ("process", &comm())];
    let metrics = agent.scrape_until("three connects under way", |metrics| {
        metrics.sum(WAITING, waiting) == 3
    });
    assert_eq!(metrics.sum(FAILURES, &[("netns", &netns)]), 0);
    // How often the SYN is sent again is the kernel's affair: it changed in 6.5.
    settled(agent, &a, 0, &[("timed_out", 3)]);
    assert_eq!(counted(&a, "AttemptFails"), 3);
    drop(sockets);
}

#[test]
fn a_connect_that_its_process_gives_up_is_abandoned() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = Agent::shared();
    let (a, _b, link) = linked();
    let target = link.b.address(Family::V6, CLOSED);
    let _silence = Rule::drop_all(link.b.ns(), Hook::Input, Select::To(CLOSED)).unwrap();
    let kind = a.run(|| {
        let limit = Duration::from_millis(200);
        TcpStream::connect_timeout(&target, limit)
            .unwrap_err()
            .kind()
    });
    assert_eq!(kind, ErrorKind::TimedOut);
    settled(agent, &a, 0, &[("abandoned", 1)]);
}

#[test]
fn a_lost_syn_shows_as_a_second_of_latency() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = Agent::shared();
    let (a, b, link) = linked();
    let listener = Listener::builder(link.b.address(Family::V4, 82))
        .open(&b)
        .unwrap();
    let silence = Rule::drop_all(&b, Hook::Input, Select::To(82)).unwrap();
    let socket = a.run(|| connect_nonblocking(listener.address()).unwrap());
    wait_until(PATIENCE, "the lost SYN", || Ok(silence.dropped()? >= 1)).unwrap();
    // On a slow machine it may be more than one.
    let lost = silence.remove().unwrap();
    let metrics = settled(agent, &a, 1, &[]);
    let netns = a.inode();
    let labels: Labels<'_> = &[("netns", &netns), ("port", &82)];
    let seconds = metrics.get(LATENCY_SUM, labels).unwrap();
    assert!((0.9..60.0).contains(&seconds), "{seconds} s");
    let again: Labels<'_> = &[("netns", &netns), ("port", &82), ("type", &"syn")];
    let sent_again = metrics.sum("netobs_tcp_retransmitted_segments_total", again);
    // One that was not lost may be sent again, too, when the answer takes as long.
    assert!(sent_again >= lost);
    let kernel = Counters::read_in(&a).unwrap();
    assert_eq!(sent_again, kernel.get("TcpExt", "TCPSynRetrans"));
    drop(socket);
}

#[test]
fn what_icmp_says_of_a_connect_is_its_failure() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::shared();
    for (family, error_type) in [(Family::V4, "host_unreachable"), (Family::V6, "other")] {
        let ns = NetNs::new("icmp").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let target = SocketAddr::new(peer.address(2), CLOSED);
        ns.sysctl("net.ipv4.tcp_syn_retries", "1").unwrap();
        let connecting = ns.spawn(move || TcpStream::connect(target).map(drop));
        let syn = peer
            .receive(PATIENCE, |segment| segment.destination.port() == CLOSED)
            .unwrap();
        peer.send_unreachable(&syn).unwrap();
        connecting.join().unwrap().unwrap_err();
        let netns = ns.inode();
        let metrics = agent.scrape_until("the failure", |metrics| {
            metrics.sum(FAILURES, &[("netns", &netns)]) == 1
        });
        let labels: Labels<'_> = &[("netns", &netns), ("error_type", &error_type)];
        assert_eq!(metrics.sum(FAILURES, labels), 1, "{}", metrics.text);
    }
}

#[test]
fn a_connect_without_a_free_port_sends_nothing() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("ports").unwrap();
    ns.sysctl("net.ipv4.ip_local_port_range", "50000 50003")
        .unwrap();
    let listener = Listener::builder(loopback(Family::V4, 83))
        .open(&ns)
        .unwrap();
    let (open, failed) = ns.run(|| {
        let tries = (0..7).map(|_| TcpStream::connect(listener.address()));
        tries.partition::<Vec<_>, _>(Result::is_ok)
    });
    assert!(
        failed
            .iter()
            .all(|it| it.as_ref().unwrap_err().kind() == ErrorKind::AddrNotAvailable)
    );
    let opened = u64::try_from(open.len()).unwrap();
    let failed = u64::try_from(failed.len()).unwrap();
    assert_eq!(counted(&ns, "ActiveOpens"), opened);
    assert!(failed >= 3, "{failed}");
    settled(agent, &ns, opened, &[("not_sent", failed)]);
}

#[test]
fn two_that_connect_to_each_other_at_once_are_both_clients() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::shared();
    let ns = NetNs::new("both").unwrap();
    // A socket that connects to its own address: the SYN comes back as the other's.
    let own: SocketAddr = "127.0.0.1:45678".parse().unwrap();
    let socket = ns.run(|| {
        let socket = std::net::TcpListener::bind(own).map(drop);
        socket.unwrap();
        socket2(own)
    });
    assert_eq!(counted(&ns, "PassiveOpens"), 0);
    let metrics = settled(agent, &ns, 1, &[]);
    let netns = ns.inode();
    assert_eq!(
        metrics.sum("netobs_tcp_accepts_total", &[("netns", &netns)]),
        0
    );
    socket.shutdown(Shutdown::Both).unwrap();
}

/// Binds and connects to the same address.
fn socket2(own: SocketAddr) -> TcpStream {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
        sockopt,
    };
    use std::os::fd::AsRawFd;
    let fd = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
    let address = SockaddrStorage::from(own);
    bind(fd.as_raw_fd(), &address).unwrap();
    connect(fd.as_raw_fd(), &address).unwrap();
    fd.into()
}

mod host_only {
    use super::*;

    #[test]
    fn processes_that_are_gone_at_once_have_their_connects() {
        require!(require::root(), require::command("bash"));
        let agent = Agent::shared();
        let ns = NetNs::new("brief").unwrap();
        let listener = Listener::builder(any(Family::V4)).open(&ns).unwrap();
        let port = listener.port();
        for _ in 0..20 {
            let status = ns.run(|| {
                std::process::Command::new("bash")
                    .args(["-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{port}")])
                    .status()
                    .unwrap()
            });
            assert!(status.success());
        }
        let netns = ns.inode();
        let labels: Labels<'_> = &[("netns", &netns), ("process", &"bash")];
        agent.scrape_until("the connects of processes that are gone", |metrics| {
            metrics.sum(CONNECTS, labels) == 20
        });
    }
}
