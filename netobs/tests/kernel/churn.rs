//! Very many short connections, and listeners that come and go in hundreds of namespaces: afterwards
//! the agent is what it was before.

use std::{
    collections::{HashSet, VecDeque},
    fs,
    net::TcpStream,
    time::{Duration, Instant},
};

use testbed::{Listener, NetNs, require, scenario, wait_until};

use crate::support::{Agent, Ledger, Metrics, PATIENCE};

/// Short connections made; `NETOBS_CHURN` says otherwise.
const CONNECTIONS: u64 = 20_000;
/// Namespaces with a listener each, over time.
const NAMESPACES: u64 = 300;
/// On a machine that takes longer to make them, there are fewer.
const LONGEST: Duration = Duration::from_secs(15);
/// Of these, how many are there at the same time.
const AT_ONCE: usize = 50;
/// Threads that are made once, when first needed (visits to namespaces, walks over control groups).
const MADE_ONCE: usize = 3;
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

/// What the agent's maps take of memory, as the kernel says: from 6.4 on by their entries, before by their sizes.
fn map_bytes(agent: &Agent) -> u64 {
    let folder = fs::read_dir(format!("/proc/{}/fdinfo", agent.pid())).unwrap();
    let described = folder.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok());
    described
        .filter(|text| text.contains("map_type:"))
        .filter_map(|text| {
            let memory = text
                .lines()
                .find_map(|line| line.strip_prefix("memlock:"))?;
            memory.trim().parse::<u64>().ok()
        })
        .sum()
}

#[test]
fn listeners_in_hundreds_of_namespaces_leave_nothing_behind() {
    require!(require::root());
    let agent = Agent::start(&[]);
    let before = agent.scrape();
    let (threads_before, maps_before) = (threads(&agent), map_bytes(&agent));
    let mut open = VecDeque::new();
    let (mut drops, begun) = (0, Instant::now());
    for n in 0..NAMESPACES {
        if begun.elapsed() > LONGEST {
            println!("{n} namespaces are enough for {LONGEST:?}");
            break;
        }
        let ns = NetNs::new("hundreds").unwrap();
        let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(0);
        let listener = builder.open(&ns).unwrap();
        listener.fill().unwrap();
        scenario::overflow_syns(&listener, n % 3).unwrap();
        drops += n % 3;
        if n % 20 == 0 {
            Ledger::from_birth(&ns).balanced(&agent);
        }
        open.push_back((listener, ns));
        if open.len() > AT_ONCE {
            // Closed on purpose while others are open: numbers and addresses are used again.
            open.pop_front();
        }
    }
    let own: HashSet<String> = open.iter().map(|(_, ns)| ns.inode().to_string()).collect();
    let there = |metrics: &Metrics| -> usize {
        let queues = metrics.all("netobs_tcp_accept_queue_length", &[]);
        queues
            .filter(|sample| own.contains(&sample.labels["netns"]))
            .count()
    };
    agent.scrape_until("the listeners that are open", |metrics| {
        there(metrics) >= own.len()
    });
    let maps_then = map_bytes(&agent);
    drop(open);
    let after = agent.scrape_until("every listener to be gone", |metrics| there(metrics) == 0);
    let idle = wait_until(PATIENCE, "threads to be what they were", || {
        Ok(threads(&agent) <= threads_before + MADE_ONCE)
    });
    idle.unwrap();
    assert_eq!(
        after.sum("netobs_events_lost_total", &[("reason", &"map_full")]),
        0
    );
    let resident = |metrics: &Metrics| value(metrics, "process_resident_memory_bytes");
    let growth = resident(&after) - resident(&before);
    // Ports stay known as a server's for two minutes.
    println!(
        "{drops} drops; maps {maps_before} bytes, then {maps_then}, then {}; {growth} bytes more resident",
        map_bytes(&agent)
    );
    assert!(growth < GROWTH, "{growth} bytes more");
}
