//! Connections that `accept()` takes: how many, from which listener, how long they waited, by whom.

use std::{
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use testbed::{
    Counters, Family, ListenGroup, Listener, NetNs, Ns, RawPeer, connect_nonblocking, require,
    scenario, wait_until,
};

use crate::support::{Agent, Metrics, PATIENCE, agent::SEES_ACCEPTS, any, metrics::Labels};

const ACCEPTS: &str = "netobs_tcp_accepts_total";
const WAITED: &str = "netobs_tcp_accept_latency_seconds_sum";
const WAITS: &str = "netobs_tcp_accept_latency_seconds_count";

fn comm() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    name.trim_end().to_owned()
}

/// Connects `n` times from inside the namespace, and waits until all are queued.
fn queue(listener: &Listener, target: SocketAddr, n: u32) -> Vec<impl AsFd> {
    let before = listener.queued().unwrap();
    let sockets = listener.ns().run(|| {
        (0..n)
            .map(|_| connect_nonblocking(target).unwrap())
            .collect::<Vec<_>>()
    });
    wait_until(PATIENCE, "the connections in the queue", || {
        Ok(listener.queued()? == before + n)
    })
    .unwrap();
    sockets
}

/// Scrapes until as many connections of a listener have been accepted; exactly as many must be.
fn settled(agent: &Agent, ns: &Ns, more: Labels<'_>, n: u64) -> Metrics {
    let netns = ns.inode();
    let mut labels: Vec<(&str, &dyn std::fmt::Display)> = vec![("netns", &netns)];
    labels.extend(more);
    let metrics = agent.scrape_until("the accepts", |metrics| metrics.sum(ACCEPTS, &labels) >= n);
    assert_eq!(metrics.sum(ACCEPTS, &labels), n, "{}", metrics.text);
    metrics
}

#[test]
fn a_slow_acceptor_shows_as_latency() {
    require!(require::root());
    let agent = Agent::shared();
    for family in [Family::V4, Family::V6] {
        let ns = NetNs::new("accepts").unwrap();
        let listener = Listener::builder(any(family)).open(&ns).unwrap();
        let sockets = queue(&listener, listener.target(), 5);
        std::thread::sleep(Duration::from_millis(300)); // what is measured
        assert_eq!(listener.accept_all().unwrap().len(), 5);
        let more: Labels<'_> = &[("local_port", &listener.port()), ("process", &comm())];
        let metrics = settled(agent, &ns, more, 5);
        let netns = ns.inode();
        let labels: Labels<'_> = &[("netns", &netns), ("local_port", &listener.port())];
        assert_eq!(metrics.sum(WAITS, labels), 5);
        let waited = metrics.get(WAITED, labels).unwrap();
        assert!((1.5..15.0).contains(&waited), "{waited} s");
        drop(sockets);
    }
}

#[test]
fn accept_and_accept4_count_alike() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("calls").unwrap();
    let listener = Listener::builder(any(Family::V4)).open(&ns).unwrap();
    let sockets = queue(&listener, listener.target(), 6);
    for n in 0..6 {
        let fd = listener.as_fd().as_raw_fd();
        if n % 2 == 0 {
            let taken = nix::sys::socket::accept(fd).unwrap();
            nix::unistd::close(taken).unwrap();
        } else {
            let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
            let taken = nix::sys::socket::accept4(fd, flags).unwrap();
            nix::unistd::close(taken).unwrap();
        }
    }
    // Nothing more there: no event.
    assert!(nix::sys::socket::accept(listener.as_fd().as_raw_fd()).is_err());
    let metrics = settled(agent, &ns, &[], 6);
    assert_eq!(metrics.sum(WAITS, &[("netns", &ns.inode())]), 6);
    drop(sockets);
}

#[test]
fn a_specific_address_and_the_wildcard_have_their_own() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("addresses").unwrap();
    let wildcard = Listener::builder("0.0.0.0:84".parse().unwrap()).reuse_port();
    let wildcard = wildcard.open(&ns).unwrap();
    let specific = Listener::builder("127.0.0.1:84".parse().unwrap()).reuse_port();
    let specific = specific.open(&ns).unwrap();
    let one = queue(&specific, "127.0.0.1:84".parse().unwrap(), 3);
    let other = queue(&wildcard, "127.0.0.2:84".parse().unwrap(), 4);
    assert_eq!(specific.accept_all().unwrap().len(), 3);
    assert_eq!(wildcard.accept_all().unwrap().len(), 4);
    settled(agent, &ns, &[("local_address", &"127.0.0.1")], 3);
    settled(agent, &ns, &[("local_address", &"0.0.0.0")], 4);
    settled(agent, &ns, &[], 7);
    drop((one, other));
}

#[test]
fn ipv4_on_an_ipv6_listener_is_the_listeners() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("mapped").unwrap();
    let listener = Listener::builder(any(Family::V6)).open(&ns).unwrap();
    let target = SocketAddr::new([127, 0, 0, 1].into(), listener.port());
    let sockets = queue(&listener, target, 4);
    assert_eq!(listener.accept_all().unwrap().len(), 4);
    let metrics = settled(agent, &ns, &[("local_address", &"::")], 4);
    assert_eq!(metrics.sum(WAITS, &[("netns", &ns.inode())]), 4);
    drop(sockets);
}

#[test]
fn a_group_on_one_port_is_counted_once() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("group").unwrap();
    let group = ListenGroup::open(&ns, any(Family::V4), 64, 3).unwrap();
    let target = group.members()[0].target();
    let mut taken = 0;
    let sockets: Vec<_> = ns.run(|| {
        (0..30)
            .map(|_| TcpStream::connect(target).unwrap())
            .collect()
    });
    wait_until(PATIENCE, "all to be accepted", || {
        for member in group.members() {
            taken += member.accept_all()?.len();
        }
        Ok(taken == 30)
    })
    .unwrap();
    let metrics = settled(agent, &ns, &[("local_port", &target.port())], 30);
    assert_eq!(metrics.sum(WAITS, &[("netns", &ns.inode())]), 30);
    let opened = Counters::read_in(&ns).unwrap().get("Tcp", "PassiveOpens");
    assert_eq!(opened, 30);
    drop(sockets);
}

#[test]
fn a_listener_older_than_the_agent_is_known_by_its_holder() {
    require!(require::root());
    let ns = NetNs::new("older").unwrap();
    let listener = Listener::builder(any(Family::V4)).open(&ns).unwrap();
    // One connection is older, too: it is counted, but nobody knows how long it waited.
    let early = queue(&listener, listener.target(), 1);
    let agent = Agent::start(&SEES_ACCEPTS);
    let late = queue(&listener, listener.target(), 2);
    assert_eq!(listener.accept_all().unwrap().len(), 3);
    let more: Labels<'_> = &[("local_port", &listener.port()), ("process", &comm())];
    let metrics = settled(&agent, &ns, more, 3);
    let waits = metrics.sum(WAITS, &[("netns", &ns.inode())]);
    assert!((2..=3).contains(&waits), "{waits}");
    drop((early, late));
}

/// A peer whose clock went back: its new connections are refused by the TIME_WAIT socket of an earlier
/// one, and the listener knows nothing of them.
#[test]
fn syns_that_time_wait_refuses_are_the_listeners() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::shared();
    for family in [Family::V4, Family::V6] {
        let ns = NetNs::new("paws").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let listener = Listener::builder(any(family)).open(&ns).unwrap();
        scenario::syns_before_time_wait(&peer, &listener, 3).unwrap();
        assert_eq!(listener.queued().unwrap(), 0);
        let netns = ns.inode();
        let labels: Labels<'_> = &[
            ("netns", &netns),
            ("local_port", &listener.port()),
            ("reason", &"time_wait"),
            ("process", &comm()),
        ];
        let metrics = agent.scrape();
        if metrics.sum(
            "netobs_probe_attached",
            &[("probe", &"tcp_timewait_state_process")],
        ) == 0
            && Counters::read_in(&ns)
                .unwrap()
                .find("TcpExt", "PAWSTimewait")
                .is_none()
        {
            return; // this kernel shows them to nobody
        }
        assert_eq!(
            metrics.sum("netobs_tcp_syn_drops_total", labels),
            3,
            "{}",
            metrics.text
        );
    }
}

/// Where only system calls tell of accepts, each of which would be slower: only who asks for it pays, and who
/// does not is told.
#[test]
fn system_calls_are_not_watched_unless_asked_for() {
    require!(require::root());
    let agent = Agent::start(&[]);
    let ns = NetNs::new("unasked").unwrap();
    let listener = Listener::builder(any(Family::V4)).open(&ns).unwrap();
    let waiting = queue(&listener, listener.target(), 2);
    assert_eq!(listener.accept_all().unwrap().len(), 2);
    let metrics = agent.scrape();
    let attached = |probe: &str| metrics.sum("netobs_probe_attached", &[("probe", &probe)]);
    assert_eq!(attached("sys_exit_accept"), 0, "{}", metrics.text);
    let signal = |labels: Labels<'_>| {
        let mut all: Vec<(&str, &dyn std::fmt::Display)> = vec![("signal", &"accept_latency")];
        all.extend(labels);
        metrics.sum("netobs_signal_info", &all)
    };
    let accepted = metrics.sum(ACCEPTS, &[("netns", &ns.inode())]);
    if attached("inet_csk_accept") == 1 {
        assert_eq!((accepted, signal(&[("exactness", &"exact")])), (2, 1));
    } else {
        assert_eq!((accepted, signal(&[("exactness", &"unavailable")])), (0, 1));
        let stderr = agent.stop();
        assert!(stderr.contains("--probe sys_exit_accept"), "{stderr}");
    }
    drop(waiting);
}
