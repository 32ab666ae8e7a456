//! Full rings and maps: every loss is counted with its reason, and the sums stay the kernel's, or the
//! ledger says by how much they are not.

use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use testbed::{
    Counters, Family, Hook, Link, Listener, NetNs, Ns, Rule, connect_nonblocking, require,
    rule::Select, scenario, witness::wait_counted,
};

use crate::support::{
    Agent, Ledger, Metrics, PATIENCE,
    agent::run,
    books::{DROPS, SEGMENTS, UNATTRIBUTED, finally, settled},
    metrics::Labels,
};

const LOST: &str = "netobs_events_lost_total";
/// Where SYNs are swallowed.
const SILENT: u16 = 9;

/// An agent whose maps have these sizes.
fn small(sizes: &str) -> Agent {
    let mut command = run(&[]);
    command.env("NETOBS_TEST_MAP_SIZES", sizes);
    Agent::of(command)
}

fn open(ns: &Ns) -> Listener {
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(1);
    builder.open(ns).unwrap()
}

fn lost(metrics: &Metrics, reason: &str) -> u64 {
    metrics.sum(LOST, &[("reason", &reason)])
}

fn unattributed(metrics: &Metrics, ns: &Ns, counter: &str) -> f64 {
    let labels: Labels<'_> = &[("netns", &ns.inode()), ("counter", &counter)];
    metrics.get(UNATTRIBUTED, labels).unwrap()
}

#[test]
fn a_full_ring_loses_events_and_no_count() {
    require!(require::root());
    let agent = small("EVENTS=4096");
    let ns = NetNs::new("ring").unwrap();
    let ledger = Ledger::from_birth(&ns);
    // Known before the agent sleeps.
    let stays = open(&ns);
    settled(&agent, &ns);
    agent.signal(Signal::SIGSTOP);
    let mut want = 0;
    for n in 1..=60 {
        let listener = open(&ns);
        listener.fill().unwrap();
        scenario::overflow_syns(&listener, n).unwrap();
        want += n;
    }
    agent.signal(Signal::SIGCONT);
    let metrics = ledger.balanced(&agent);
    assert_eq!(metrics.sum(DROPS, &[("netns", &ns.inode())]), want);
    assert!(lost(&metrics, "ring_full") > 0, "{}", metrics.text);
    drop(stays);
}

#[test]
fn what_finds_no_room_among_the_listeners_is_unattributed() {
    require!(require::root());
    let agent = small("LISTENERS=3");
    let ns = NetNs::new("crowd").unwrap();
    let listeners: Vec<Listener> = (0..8).map(|_| open(&ns)).collect();
    for (listener, n) in listeners.iter().zip(1..) {
        listener.fill().unwrap();
        scenario::overflow_syns(listener, n).unwrap();
    }
    let metrics = settled(&agent, &ns);
    assert!(lost(&metrics, "map_full") > 0, "{}", metrics.text);
    let counted = Counters::read_in(&ns).unwrap().get("TcpExt", "ListenDrops");
    let attributed = metrics.sum(DROPS, &[("netns", &ns.inode())]);
    #[allow(clippy::cast_precision_loss, reason = "counts of a test are small")]
    let missing = (counted - attributed) as f64;
    assert!(missing > 0.0, "{}", metrics.text);
    assert_eq!(unattributed(&metrics, &ns, "TcpExt_ListenDrops"), missing);
}

#[test]
fn sockets_that_cannot_be_followed_are_counted_by_their_events() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = small("SOCKETS=2");
    let (a, b) = (NetNs::new("fa").unwrap(), NetNs::new("fb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    scenario::syn_blackhole(&link, Family::V4, 12, 1).unwrap();
    let metrics = settled(&agent, &a);
    assert!(lost(&metrics, "map_full") > 0, "{}", metrics.text);
    let sent = Counters::read_in(&a).unwrap().get("Tcp", "RetransSegs");
    let attributed = metrics.sum(SEGMENTS, &[("netns", &a.inode())]);
    #[allow(clippy::cast_precision_loss, reason = "counts of a test are small")]
    let missing = (sent - attributed) as f64;
    assert_eq!(unattributed(&metrics, &a, "Tcp_RetransSegs"), missing);
}

/// The end of a socket that is followed makes room, in which others are met at their own end.
#[test]
fn sockets_that_could_not_be_followed_are_not_counted_twice() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = small("SOCKETS=2");
    let (a, b) = (NetNs::new("ga").unwrap(), NetNs::new("gb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    let _silent = Rule::drop_all(&b, Hook::Input, Select::To(SILENT)).unwrap();
    // One retransmission each.
    a.sysctl("net.ipv4.tcp_syn_retries", "1").unwrap();
    let _ = a.sysctl("net.ipv4.tcp_syn_linear_timeouts", "0"); // 6.5 and later
    let target = link.b.address(Family::V4, SILENT);
    let born = Counters::read_in(&a).unwrap();
    let connect = |sockets: usize, sent: u64| -> Vec<OwnedFd> {
        let connect = || connect_nonblocking(target).unwrap();
        let sockets = a.run(|| (0..sockets).map(|_| connect()).collect());
        wait_counted(&a, &born, "TcpExt", "TCPSynRetrans", sent, PATIENCE).unwrap();
        sockets
    };
    let followed = connect(2, 2);
    let others = connect(10, 12);
    drop(followed);
    drop(others);
    let metrics = settled(&agent, &a);
    assert!(lost(&metrics, "map_full") >= 10, "{}", metrics.text);
    let attributed = metrics.sum(SEGMENTS, &[("netns", &a.inode())]);
    assert_eq!(attributed, 12, "{}", metrics.text);
    assert!(unattributed(&metrics, &a, "Tcp_RetransSegs").abs() < 0.5);
}

#[test]
fn segments_that_find_no_room_are_unattributed() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = small("RETRANSMITS=1");
    let (a, b) = (NetNs::new("na").unwrap(), NetNs::new("nb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    // Two keys: SYNs to a port, and data.
    scenario::syn_blackhole(&link, Family::V4, 5, 1).unwrap();
    scenario::lossy_transfer(&link, Family::V4, 1 << 20, 30).unwrap();
    let metrics = settled(&agent, &a);
    assert!(lost(&metrics, "map_full") > 0, "{}", metrics.text);
    let sent = Counters::read_in(&a).unwrap().get("Tcp", "RetransSegs");
    let attributed = metrics.sum(SEGMENTS, &[("netns", &a.inode())]);
    assert!(attributed < sent, "{attributed} of {sent}");
    #[allow(clippy::cast_precision_loss, reason = "counts of a test are small")]
    let missing = (sent - attributed) as f64;
    assert_eq!(unattributed(&metrics, &a, "Tcp_RetransSegs"), missing);
    finally(&Ledger::from_birth(&b), &agent);
}
