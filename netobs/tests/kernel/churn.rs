//! Very many short connections, and listeners that come and go in hundreds of namespaces: afterwards
//! the agent is what it was before.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fs,
    net::TcpStream,
    time::{Duration, Instant},
};

use testbed::{Listener, NetNs, require, scenario, wait_until};

use crate::support::{Agent, Ledger, Metrics, PATIENCE, agent::run, maps};

/// Short connections made; `NETOBS_CHURN` says otherwise.
const CONNECTIONS: u64 = 20_000;
/// Namespaces with a listener each, over time.
const NAMESPACES: u64 = 300;
/// On a machine that takes longer to make them, there are fewer.
const LONGEST: Duration = Duration::from_secs(15);
/// Of these, how many are there at the same time.
const AT_ONCE: usize = 50;
/// What maps may take more after the same churn a second time: free lists of the kernel's allocators, on
/// each CPU for each size, which are filled and emptied by the batch.
const MAP_SLACK: u64 = 512 << 10;
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
    // By number: the agent may hold a map by two descriptors.
    let by_number: HashMap<u64, u64> = described
        .filter_map(|text| {
            let number = |key| {
                let value = text.lines().find_map(|line| line.strip_prefix(key))?;
                value.trim().parse().ok()
            };
            Some((number("map_id:")?, number("memlock:")?))
        })
        .collect();
    by_number.values().sum()
}

/// Opens a listener in each of many namespaces, overflows some, connects to them, and closes all; returns
/// the namespaces' numbers, and how many there were.
fn churn(agent: &Agent, namespaces: u64) -> (Vec<u32>, u64) {
    let mut open = VecDeque::new();
    let mut numbers = Vec::new();
    let begun = Instant::now();
    let mut made = 0;
    for n in 0..namespaces {
        if begun.elapsed() > LONGEST {
            println!("{n} namespaces are enough for {LONGEST:?}");
            break;
        }
        let ns = NetNs::new("hundreds").unwrap();
        numbers.push(ns.inode());
        let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(0);
        let listener = builder.open(&ns).unwrap();
        listener.fill().unwrap();
        scenario::overflow_syns(&listener, n % 3).unwrap();
        if n % 20 == 0 {
            Ledger::from_birth(&ns).balanced(agent);
        }
        open.push_back((listener, ns));
        if open.len() > AT_ONCE {
            // Closed on purpose while others are open: numbers and addresses are used again.
            open.pop_front();
        }
        made += 1;
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
    drop(open);
    numbers.sort_unstable();
    numbers.dedup();
    (numbers, made)
}

/// Entries of the agent's hashes that have to do with one of these namespaces, by map.
fn entries(agent: &Agent, numbers: &[u32]) -> BTreeMap<String, usize> {
    let maps = maps::of_process(agent.pid()).into_iter();
    let counted = maps.map(|(name, map)| (name, map.of_namespaces(numbers)));
    counted.filter(|(_, entries)| *entries > 0).collect()
}

/// Waits until neither maps nor metrics know any of these namespaces.
fn forgotten(agent: &Agent, numbers: &[u32]) {
    let mut left = BTreeMap::new();
    let gone = wait_until(PATIENCE, "every entry of the churn to be gone", || {
        left = entries(agent, numbers);
        Ok(left.is_empty())
    });
    assert!(gone.is_ok(), "{left:?}");
    let names: HashSet<String> = numbers.iter().map(u32::to_string).collect();
    agent.scrape_until("every series of the churn to be gone", |metrics| {
        let mut listed = metrics.all("netobs_netstat_total", &[]);
        listed.all(|sample| !names.contains(&sample.labels["netns"]))
    });
}

#[test]
fn listeners_in_hundreds_of_namespaces_leave_nothing_behind() {
    require!(require::root());
    let mut command = run(&[]);
    command.env("NETOBS_TEST_LINGER", "2");
    let agent = Agent::of(command);
    // What is made once is made now: threads that visit namespaces, buffers, caches of the allocators.
    let (numbers, _) = churn(&agent, 10);
    forgotten(&agent, &numbers);
    let threads_before = threads(&agent);
    let resident = || value(&agent.scrape(), "process_resident_memory_bytes");
    let mut memory = vec![(resident(), map_bytes(&agent))];
    for _ in 0..2 {
        let (numbers, made) = churn(&agent, NAMESPACES);
        let there = entries(&agent, &numbers);
        forgotten(&agent, &numbers);
        let idle = wait_until(PATIENCE, "threads to be what they were", || {
            Ok(threads(&agent) == threads_before)
        });
        idle.unwrap_or_else(|error| panic!("{error}: {} now", threads(&agent)));
        memory.push((resident(), map_bytes(&agent)));
        println!("{made} namespaces: {there:?} at the end, none after; memory {memory:?}");
    }
    let lost = agent.scrape();
    assert_eq!(
        lost.sum("netobs_events_lost_total", &[("reason", &"map_full")]),
        0
    );
    let [first, second, third] = memory[..] else {
        panic!("three readings")
    };
    assert!(second.0 - first.0 < GROWTH, "{memory:?}");
    // The second time everything is there already.
    assert!(third.0 - second.0 < GROWTH / 4.0, "{memory:?}");
    assert!(third.1 <= second.1 + MAP_SLACK, "{memory:?}");
}

/// An entry whose socket is gone, as it is left where the kernel skips a run, goes when room is short.
#[test]
fn connections_whose_end_was_not_seen_do_not_stay() {
    require!(require::root());
    let mut command = run(&[]);
    command.env("NETOBS_TEST_MAP_SIZES", "CONNECTIONS=512");
    let agent = Agent::of(command);
    let connections = maps::of_process(agent.pid())
        .remove("CONNECTIONS")
        .expect("a map of connections");
    // Addresses at which no socket is.
    let nowhere = |key: &[u8]| key[4..] == [0; 4];
    let first = 8_u64.to_ne_bytes();
    wait_until(PATIENCE, "room", || Ok(connections.put_zeros(&first))).unwrap();
    let full = (1_u64..).find(|sk| !connections.put_zeros(&(sk * 8).to_ne_bytes()));
    let ns = NetNs::new("nowhere").unwrap();
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(16);
    let listener = builder.open(&ns).unwrap();
    let connect = || ns.run(|| TcpStream::connect(listener.target()).unwrap());
    // Finds no room, and tells so.
    let early = connect();
    let swept = wait_until(PATIENCE, "the entries to be gone", || {
        Ok(!connections.keys().iter().any(|key| nowhere(key)))
    });
    swept.unwrap();
    // Of the first, an end may have found the room of somebody else's that had closed.
    let own = || connections.of_namespaces(&[ns.inode()]);
    let before = own();
    let late = connect();
    let metrics = agent.scrape();
    assert!(
        metrics.sum("netobs_events_total", &[("probe", &"gone_sockets")]) >= full.unwrap() - 1,
        "{}",
        metrics.text
    );
    // Those that are there stay.
    assert_eq!(own(), before + 2);
    drop((early, late));
}
