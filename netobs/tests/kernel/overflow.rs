//! Full accept queues: N SYNs turned away, by listener.

use testbed::{Family, Link, ListenGroup, Listener, NetNs, Ns, require, scenario};

use crate::support::{
    Agent, Ledger,
    books::{OVERFLOWS, drops_are, gauge},
};

const LENGTH: &str = "netobs_tcp_accept_queue_length";
const LIMIT: &str = "netobs_tcp_accept_queue_limit";

fn open(ns: &Ns, address: &str, backlog: u16) -> Listener {
    let builder = Listener::builder(address.parse().unwrap()).backlog(backlog);
    builder.open(ns).unwrap()
}

fn overflow(listener: &Listener, n: u64) {
    listener.fill().unwrap();
    scenario::overflow_syns(listener, n).unwrap();
}

/// Its drops are `n` SYNs, all overflows; the queue is shown full.
fn holds_syns(metrics: &crate::support::Metrics, listener: &Listener, n: u64) {
    drops_are(metrics, listener, &[("syn", "accept_queue_full", n)]);
    let labels: crate::support::metrics::Labels<'_> = &[
        ("netns", &listener.ns().inode()),
        ("local_port", &listener.port()),
        ("local_address", &listener.address().ip()),
        ("stage", &"syn"),
    ];
    assert_eq!(metrics.sum(OVERFLOWS, labels), n);
    assert_eq!(
        gauge(metrics, LENGTH, listener),
        f64::from(listener.capacity())
    );
    assert_eq!(
        gauge(metrics, LIMIT, listener),
        f64::from(listener.backlog())
    );
}

#[test]
fn several_listeners_of_two_namespaces_at_once() {
    require!(require::root());
    let agent = Agent::shared();
    let spaces = [NetNs::new("ova").unwrap(), NetNs::new("ovb").unwrap()];
    // Different numbers everywhere: a mix-up cannot cancel out.
    let all: Vec<(Listener, u64)> = spaces
        .iter()
        .zip([0, 100])
        .flat_map(|(ns, more)| {
            [
                (open(ns, "127.0.0.1:0", 8), 7 + more),
                (open(ns, "127.0.0.1:0", 1), 11 + more),
                (open(ns, "[::1]:0", 4), 13 + more),
                (open(ns, "0.0.0.0:0", 0), 17 + more),
            ]
        })
        .collect();
    for (listener, n) in &all {
        overflow(listener, *n);
    }
    for ns in &spaces {
        let metrics = Ledger::from_birth(ns).balanced(agent);
        for (listener, n) in &all {
            if listener.ns().inode() == ns.inode() {
                holds_syns(&metrics, listener, *n);
            }
        }
    }
}

#[test]
fn dual_stack_listeners_are_reached_over_both_families() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("dual").unwrap();
    let any = "[::]:0".parse().unwrap();
    let builder = Listener::builder(any).backlog(2).v6only(false);
    let listener = builder.open(&ns).unwrap();
    overflow(&listener, 5);
    let mapped = format!("127.0.0.1:{}", listener.port()).parse().unwrap();
    scenario::overflow_syns_from(&ns, mapped, &listener, 23).unwrap();
    let metrics = Ledger::from_birth(&ns).balanced(agent);
    holds_syns(&metrics, &listener, 28);
}

#[test]
fn overflow_from_another_namespace_belongs_to_the_listeners() {
    require!(require::root(), require::command("ip"));
    let agent = Agent::shared();
    let (a, b) = (NetNs::new("cli").unwrap(), NetNs::new("srv").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    let mut want = Vec::new();
    for (family, n) in [(Family::V4, 19), (Family::V6, 29)] {
        let builder = Listener::builder(link.b.address(family, 0)).backlog(2);
        let listener = builder.open(&b).unwrap();
        listener.fill_from(&a, listener.address()).unwrap();
        scenario::overflow_syns_from(&a, listener.address(), &listener, n).unwrap();
        want.push((listener, n));
    }
    let metrics = Ledger::from_birth(&b).balanced(agent);
    for (listener, n) in &want {
        holds_syns(&metrics, listener, *n);
    }
    Ledger::from_birth(&a).balanced(agent);
}

#[test]
fn members_of_a_reuseport_group_add_up() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("group").unwrap();
    for (address, backlog) in [("127.0.0.1:0", 3), ("[::1]:0", 5)] {
        let group = ListenGroup::open(&ns, address.parse().unwrap(), backlog, 3).unwrap();
        for (member, n) in [(0_usize, 5), (1, 11), (2, 23)] {
            let listener = group.steer(member).unwrap();
            listener.fill().unwrap();
            scenario::overflow_syns(listener, n).unwrap();
        }
        let metrics = Ledger::from_birth(&ns).balanced(agent);
        let any = &group.members()[0];
        drops_are(&metrics, any, &[("syn", "accept_queue_full", 39)]);
        let members = f64::from(backlog) * 3.0;
        assert_eq!(gauge(&metrics, LIMIT, any), members);
        assert_eq!(gauge(&metrics, LENGTH, any), members + 3.0);
    }
}

#[test]
fn counts_go_on_between_scrapes() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("goon").unwrap();
    let listener = open(&ns, "127.0.0.1:0", 4);
    listener.fill().unwrap();
    let ledger = Ledger::from_birth(&ns);
    let mut total = 0;
    for n in [1, 2, 1000, 3] {
        scenario::overflow_syns(&listener, n).unwrap();
        total += n;
        holds_syns(&ledger.balanced(agent), &listener, total);
    }
    // A queue that was emptied is shown empty; the counts stay.
    listener.accept_all().unwrap();
    let metrics = ledger.balanced(agent);
    assert_eq!(gauge(&metrics, LENGTH, &listener), 0.0);
    drops_are(&metrics, &listener, &[("syn", "accept_queue_full", total)]);
    assert_eq!(
        metrics.sum("netobs_events_lost_total", &[]),
        0,
        "{}",
        metrics.text
    );
}
