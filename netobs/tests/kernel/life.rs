//! Listeners and namespaces that come and go, before, between and during the agent's looks.

use std::{
    collections::{BTreeMap, HashSet},
    os::fd::OwnedFd,
};

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime, clock_settime},
};
use testbed::{
    Listener, NetNs, Ns, connect_nonblocking, feature, only_where, require, scenario, wait_until,
};

use crate::support::{
    Agent, Ledger, Metrics, PATIENCE,
    books::{DROPS, NETSTAT, OVERFLOWS, UNATTRIBUTED, drops_are, gauge},
    metrics::Labels,
};

const LOCAL: &str = "127.0.0.1:0";

fn open(ns: &Ns, address: &str) -> Listener {
    let builder = Listener::builder(address.parse().unwrap()).backlog(3);
    builder.open(ns).unwrap()
}

/// Fills the listener's queue and turns `n` SYNs away.
fn overflow(listener: &Listener, n: u64) -> Vec<OwnedFd> {
    let queued = listener.fill().unwrap();
    scenario::overflow_syns(listener, n).unwrap();
    queued
}

#[test]
fn a_listener_that_closes_between_two_scrapes_keeps_its_numbers() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("closes").unwrap();
    let ledger = Ledger::from_birth(&ns);
    let stays = open(&ns, LOCAL);
    let closes = open(&ns, LOCAL);
    overflow(&closes, 5);
    ledger.balanced(agent);
    scenario::overflow_syns(&closes, 6).unwrap();
    overflow(&stays, 3);
    let port = closes.port();
    drop(closes);
    let metrics = ledger.balanced(agent);
    let netns = ns.inode();
    let labels: Labels<'_> = &[("netns", &netns), ("local_port", &port)];
    assert_eq!(metrics.sum(DROPS, labels), 11);
    drops_are(&metrics, &stays, &[("syn", "accept_queue_full", 3)]);
    assert_eq!(metrics.sum("netobs_tcp_accept_queue_length", labels), 0);
}

#[test]
fn listeners_opened_overflowed_and_closed_at_once_are_seen() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("brief").unwrap();
    // The kernel may choose a port twice.
    let mut want = BTreeMap::<u16, u64>::new();
    for n in 1..=20 {
        let listener = open(&ns, if n % 2 == 0 { "[::1]:0" } else { LOCAL });
        overflow(&listener, n);
        *want.entry(listener.port()).or_default() += n;
    }
    let metrics = Ledger::from_birth(&ns).balanced(agent);
    let netns = ns.inode();
    for (port, n) in want {
        let labels: Labels<'_> = &[
            ("netns", &netns),
            ("local_port", &port),
            ("stage", &"syn"),
            ("reason", &"accept_queue_full"),
        ];
        assert_eq!(metrics.sum(DROPS, labels), n, "port {port}");
    }
}

#[test]
fn a_listener_that_reopens_on_its_address_goes_on() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("reopen").unwrap();
    let first = open(&ns, LOCAL);
    let address = first.address().to_string();
    overflow(&first, 4);
    drop(first);
    let mut last = None;
    for n in [5, 6, 7] {
        drop(last.take());
        // The connections that the first one had queued must be gone from the port.
        let again = open(&ns, &address);
        overflow(&again, n);
        last = Some(again);
    }
    let metrics = Ledger::from_birth(&ns).balanced(agent);
    let listener = last.unwrap();
    drops_are(&metrics, &listener, &[("syn", "accept_queue_full", 22)]);
    assert_eq!(
        gauge(&metrics, "netobs_tcp_accept_queue_limit", &listener),
        3.0
    );
}

#[test]
fn what_was_there_before_the_agent_counts_from_its_start() {
    require!(require::root());
    let ns = NetNs::new("before").unwrap();
    let old = [open(&ns, LOCAL), open(&ns, "[::1]:0")];
    let _queued = old.each_ref().map(|listener| overflow(listener, 100));
    let ledger = Ledger::from_now(&ns);
    let agent = Agent::start(&[]);
    let metrics = ledger.balanced(&agent);
    for listener in &old {
        drops_are(&metrics, listener, &[]);
        assert_eq!(
            gauge(&metrics, "netobs_tcp_accept_queue_length", listener),
            4.0
        );
        // Found by who holds the socket.
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        let labels: Labels<'_> = &[
            ("local_port", &listener.port()),
            ("process", &name.trim_end()),
        ];
        assert_eq!(metrics.sum("netobs_tcp_accept_queue_length", labels), 4);
    }
    for (listener, n) in old.iter().zip([8, 9]) {
        scenario::overflow_syns(listener, n).unwrap();
        let metrics = ledger.balanced(&agent);
        drops_are(&metrics, listener, &[("syn", "accept_queue_full", n)]);
    }
}

#[test]
fn a_namespace_that_comes_later_counts_from_its_birth() {
    require!(require::root());
    // One that has seen no other namespace of that number, as for a few seconds it would show that
    // one's last numbers.
    let agent = Agent::start(&[]);
    // Known and empty, before anything listens there.
    let ns = NetNs::new("later").unwrap();
    let ledger = Ledger::from_birth(&ns);
    ledger.balanced(&agent);
    let listener = open(&ns, LOCAL);
    overflow(&listener, 12);
    let metrics = ledger.balanced(&agent);
    drops_are(&metrics, &listener, &[("syn", "accept_queue_full", 12)]);
}

#[test]
fn a_namespace_that_dies_leaves_its_last_numbers() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("dies").unwrap();
    let netns = ns.inode();
    let listener = open(&ns, LOCAL);
    let queued = overflow(&listener, 9);
    Ledger::from_birth(&ns).balanced(agent);
    // What comes after the last scrape is seen as well: by the listener's final reading.
    scenario::overflow_syns(&listener, 4).unwrap();
    drop((listener, queued));
    drop(ns);
    let labels: Labels<'_> = &[("netns", &netns)];
    let metrics = agent.scrape_until("the final reading", |metrics| {
        metrics.sum(DROPS, labels) == 13
    });
    assert!(metrics.sum(OVERFLOWS, labels) >= 9, "{}", metrics.text);
    assert!(metrics.all(NETSTAT, labels).count() > 0, "{}", metrics.text);
    let wrong = metrics
        .all(UNATTRIBUTED, labels)
        .any(|sample| sample.value != 0.0);
    assert!(!wrong, "{}", metrics.text);
}

#[test]
fn namespaces_that_take_a_dead_ones_number_begin_anew() {
    require!(require::root());
    let agent = Agent::start(&[]);
    // Rising and falling: no counter need be lower than it was.
    for n in [30, 20, 10, 40] {
        // The kernel gives the lowest free number, most often that of the one just gone.
        let ns = NetNs::new("again").unwrap();
        let netns = ns.inode();
        let listener = open(&ns, LOCAL);
        let queued = overflow(&listener, n);
        let labels: Labels<'_> = &[("netns", &netns), ("local_port", &listener.port())];
        let metrics = agent.scrape_until("a ledger of the namespace that is there", |metrics| {
            let own: Labels<'_> = &[("netns", &netns), ("counter", &"TcpExt_ListenDrops")];
            metrics.sum(NETSTAT, own) == n
                && metrics.all(UNATTRIBUTED, &[("netns", &netns)]).count() == 4
        });
        assert_eq!(metrics.sum(DROPS, labels), n);
        let wrong = metrics
            .all(UNATTRIBUTED, &[("netns", &netns)])
            .any(|sample| sample.value != 0.0);
        assert!(!wrong, "{}", metrics.text);
        drop((listener, queued));
    }
}

#[test]
fn many_listeners_in_many_namespaces_come_and_go() {
    require!(require::root());
    let agent = Agent::shared();
    let spaces: Vec<NetNs> = (0..10).map(|_| NetNs::new("many").unwrap()).collect();
    for round in 1..=3_u64 {
        for (ns, n) in spaces.iter().zip(1..) {
            let listener = open(ns, LOCAL);
            overflow(&listener, n * round);
        }
    }
    for (ns, n) in spaces.iter().zip(1..) {
        let ledger = Ledger::from_birth(ns);
        let metrics = ledger.balanced(agent);
        assert_eq!(metrics.sum(DROPS, &[("netns", &ns.inode())]), n * 6);
    }
    let metrics = agent.scrape();
    assert_eq!(crate::support::books::lost(&metrics), 0, "{}", metrics.text);
}

#[test]
fn connections_to_a_listener_that_shuts_down_are_no_drops() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("shut").unwrap();
    let listener = open(&ns, LOCAL);
    let queued = overflow(&listener, 2);
    let address = listener.address();
    drop(listener);
    // Nobody listens any more: refused, not dropped.
    ns.run(|| connect_nonblocking(address)).unwrap();
    let refused = || testbed::Counters::read_in(&ns).map(|now| now.get("Tcp", "AttemptFails") >= 1);
    wait_until(PATIENCE, "the refusal", refused).unwrap();
    drop(queued);
    let metrics = Ledger::from_birth(&ns).balanced(agent);
    assert_eq!(metrics.sum(DROPS, &[("netns", &ns.inode())]), 2);
}

#[test]
fn listeners_that_get_the_memory_of_others_are_their_own() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("memory").unwrap();
    // Reopened on the same address, within the same millisecond or so, in memory that was one's own
    // or another's a moment ago.
    let address = open(&ns, LOCAL).address().to_string();
    let mut sockets = HashSet::new();
    let mut want = 0;
    for n in 0..40 {
        let listener = open(&ns, &address);
        listener.fill().unwrap();
        scenario::overflow_syns(&listener, n % 4).unwrap();
        want += n % 4;
        sockets.insert(memory(&ns, listener.port()));
    }
    let metrics = Ledger::from_birth(&ns).balanced(agent);
    let last = open(&ns, &address);
    drops_are(&metrics, &last, &[("syn", "accept_queue_full", want)]);
    println!("{} places in memory for 40 listeners", sockets.len());
    assert!(sockets.len() < 40);
}

/// Where the kernel keeps a listener, as /proc/net/tcp has it: scrambled, but the same for the same.
fn memory(ns: &Ns, port: u16) -> String {
    let table = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
    let local = format!(":{port:04X}");
    let mut rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row =
        rows.find(|row| row.get(1).is_some_and(|end| end.ends_with(&local)) && row[3] == "0A");
    row.unwrap()[11].to_owned()
}

#[test]
fn a_clock_that_is_set_changes_no_count() {
    require!(require::root());
    only_where!(feature::guest());
    let agent = Agent::start(&[]);
    let ns = NetNs::new("clock").unwrap();
    let listener = open(&ns, LOCAL);
    listener.fill().unwrap();
    let set = |seconds: i64| {
        let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
        let then = TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
        clock_settime(ClockId::CLOCK_REALTIME, then).unwrap();
    };
    let mut want = 0;
    // Two hours back, five on, and where it was.
    for (step, n) in [(0, 3), (-7_200, 5), (18_000, 7), (-10_800, 2)] {
        set(step);
        scenario::overflow_syns(&listener, n).unwrap();
        want += n;
        let metrics = Ledger::from_birth(&ns).balanced(&agent);
        drops_are(&metrics, &listener, &[("syn", "accept_queue_full", want)]);
        let netns = ns.inode();
        let bursts = "netobs_tcp_listen_drops_per_100ms_sum";
        let binned = |metrics: &Metrics| metrics.sum(bursts, &[("netns", &netns)]);
        agent.scrape_until("every drop in a bin", |metrics| binned(metrics) == want);
    }
}
