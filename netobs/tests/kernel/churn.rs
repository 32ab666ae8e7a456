//! Very many short connections, and listeners that come and go in hundreds of namespaces: afterwards
//! the agent is what it was before.

use std::{fs, net::TcpStream};

use testbed::{Listener, NetNs, require, scenario, wait_until};

use crate::support::{Agent, Ledger, Metrics, PATIENCE};

/// Short connections made; `NETOBS_CHURN` says otherwise.
const CONNECTIONS: u64 = 20_000;
/// Namespaces with a listener each.
const NAMESPACES: u64 = 100;
/// Memory that may stay: what the allocator keeps, and series that linger for two minutes.
const GROWTH: f64 = 8e6;

fn connections() -> u64 {
    std::env::var("NETOBS_CHURN").map_or(CONNECTIONS, |text| text.parse().unwrap())
}

/// How many threads it has.
fn threads(agent: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/task", agent.pid()))
        .unwrap()
        .count()
}

fn value(metrics: &Metrics, name: &str) -> f64 {
    metrics.get(name, &[]).unwrap()
}

/// Opens, accepts and closes connections one after the other.
fn storm(ns: &NetNs, connections: u64) {
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(64);
    let listener = builder.open(ns).unwrap();
    ns.run(|| {
        for _ in 0..connections {
            let client = TcpStream::connect(listener.target()).unwrap();
            let server = listener.accept().unwrap();
            // A RST instead of TIME_WAIT: the ports are enough for a million.
            testbed::listener::abort(client).unwrap();
            drop(server);
        }
    });
}

#[test]
fn a_storm_of_short_connections_leaves_nothing_behind() {
    require!(require::root());
    let agent = Agent::start(&[]);
    let ns = NetNs::new("churn").unwrap();
    let ledger = Ledger::from_birth(&ns);
    // What is allocated once is allocated now.
    storm(&ns, 200);
    let before = ledger.balanced(&agent);
    let threads_before = threads(&agent);
    storm(&ns, connections());
    let mut after = ledger.balanced(&agent);
    let resident = |metrics: &Metrics| value(metrics, "process_resident_memory_bytes");
    let listeners = |metrics: &Metrics| value(metrics, "netobs_listeners");
    wait_until(PATIENCE, "the agent to be what it was", || {
        after = agent.scrape();
        Ok(listeners(&after) <= listeners(&before) && threads(&agent) <= threads_before)
    })
    .unwrap();
    let growth = resident(&after) - resident(&before);
    println!("resident {} and {growth} more", resident(&before));
    assert!(growth < GROWTH, "{growth} bytes more");
    assert_eq!(
        after.sum("netobs_events_lost_total", &[("reason", &"map_full")]),
        0
    );
}

#[test]
fn listeners_in_many_namespaces_leave_nothing_behind() {
    require!(require::root());
    let agent = Agent::start(&[]);
    let before = agent.scrape();
    let mut drops = 0;
    for n in 0..NAMESPACES {
        let ns = NetNs::new("hundred").unwrap();
        let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(0);
        let listener = builder.open(&ns).unwrap();
        listener.fill().unwrap();
        scenario::overflow_syns(&listener, n % 3).unwrap();
        drops += n % 3;
        if n % 10 == 0 {
            Ledger::from_birth(&ns).balanced(&agent);
        }
    }
    assert!(drops > 0);
    let listeners = |metrics: &Metrics| value(metrics, "netobs_listeners");
    let after = agent.scrape_until("every listener to be gone", |metrics| {
        listeners(metrics) <= listeners(&before)
    });
    assert_eq!(
        after.sum("netobs_events_lost_total", &[("reason", &"map_full")]),
        0
    );
    let resident = |metrics: &Metrics| value(metrics, "process_resident_memory_bytes");
    let growth = resident(&after) - resident(&before);
    assert!(growth < GROWTH, "{growth} bytes more");
}
