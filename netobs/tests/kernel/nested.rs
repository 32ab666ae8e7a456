//! Events that come while a program handles another one on the same CPU: none is skipped.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use testbed::{
    Counters, Listener, NetNs, connect_nonblocking, listener::abort, require, wait_until,
};

use crate::support::{Agent, Metrics, PATIENCE, metrics::Labels};

/// At once, each on whatever CPU.
const CLIENTS: usize = 6;
/// By each of them.
const CONNECTS: usize = 3_000;

#[test]
fn handshakes_of_a_storm_are_counted_one_by_one() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("nested").unwrap();
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(4096);
    let listener = builder.open(&ns).unwrap();
    let before = skipped(&agent.scrape());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                listener.accept_all().unwrap();
                std::thread::yield_now();
            }
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    ns.run(|| {
                        for _ in 0..CONNECTS {
                            // Closed by RST: a port in TIME_WAIT could not be used again.
                            let socket = connect_nonblocking(listener.target()).unwrap();
                            abort(socket).unwrap();
                        }
                    });
                })
            })
            .collect();
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        over.store(true, Relaxed);
    });
    let opens = |counters: &Counters| {
        let get = |name| counters.get("Tcp", name);
        (get("ActiveOpens"), get("PassiveOpens"))
    };
    let mut kernel = (0, 0);
    wait_until(PATIENCE, "the last handshake", || {
        let now = opens(&Counters::read_in(&ns)?);
        Ok(now == std::mem::replace(&mut kernel, now))
    })
    .unwrap();
    let netns = ns.inode();
    let client: Labels<'_> = &[("netns", &netns)];
    let begun = |metrics: &Metrics| {
        metrics.sum("netobs_tcp_connects_total", client)
            + metrics.sum("netobs_tcp_connect_failures_total", client)
            + metrics.sum("netobs_tcp_connects_waiting", client)
    };
    let metrics = agent.scrape();
    let skipped = skipped(&metrics) - before;
    println!(
        "{kernel:?} opened, {} counted, {skipped} skipped",
        begun(&metrics)
    );
    assert!(
        kernel.0 as usize >= CLIENTS * CONNECTS * 9 / 10,
        "{kernel:?}"
    );
    // Where system calls can be preempted two of them may be, on one CPU: that is counted.
    assert!(kernel.0 - begun(&metrics) <= skipped, "{}", metrics.text);
}

/// Runs that neither of two programs has seen.
fn skipped(metrics: &Metrics) -> u64 {
    let labels: Labels<'_> = &[("probe", &"inet_sock_set_state"), ("reason", &"recursion")];
    metrics.sum("netobs_events_lost_total", labels)
}
