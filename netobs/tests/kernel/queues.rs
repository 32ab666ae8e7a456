//! Accept queues at the moment that a connection enters, SYN cookies, and connections that are reset
//! while they wait.

use std::{net::SocketAddr, os::fd::OwnedFd, time::Duration};

use testbed::{
    Counters, Family, Listener, NetNs, Ns, RawPeer, connect_nonblocking, listener::abort,
    raw::Flags, require, wait_until,
};

use crate::support::{Agent, Metrics, PATIENCE, any, metrics::Labels};

const FILL: &str = "netobs_tcp_accept_queue_fill_ratio";
const COOKIES: &str = "netobs_tcp_syn_cookies_total";

fn listener(ns: &Ns, backlog: u16) -> Listener {
    let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Listener::builder(local).backlog(backlog).open(ns).unwrap()
}

/// Connects once, and waits until the connection is queued.
fn queue(listener: &Listener) -> OwnedFd {
    let before = listener.queued().unwrap();
    let target = listener.target();
    let socket = listener.ns().run(|| connect_nonblocking(target).unwrap());
    wait_until(PATIENCE, "the connection in the queue", || {
        Ok(listener.queued()? == before + 1)
    })
    .unwrap();
    socket
}

/// The observations of a listener's fill ratio: `le` and the cumulative count, and their sum.
fn fills(metrics: &Metrics, listener: &Listener) -> (Vec<u64>, f64) {
    let (netns, port) = (listener.ns().inode(), listener.port());
    let bucket = |le: &str| {
        let labels: Labels<'_> = &[("netns", &netns), ("local_port", &port), ("le", &le)];
        metrics.sum(&format!("{FILL}_bucket"), labels)
    };
    let labels: Labels<'_> = &[("netns", &netns), ("local_port", &port)];
    let sum = metrics.get(&format!("{FILL}_sum"), labels);
    let bounds = ["0.0", "0.25", "0.5", "0.75", "0.9", "1.0", "+Inf"];
    (bounds.map(bucket).to_vec(), sum.unwrap_or(0.0))
}

#[test]
fn each_connection_that_enters_is_in_the_fill_ratio_once() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("fill").unwrap();
    let listener = listener(&ns, 4);
    let sockets: Vec<OwnedFd> = (0..5).map(|_| queue(&listener)).collect();
    // However often the queue is looked at afterwards, nothing is added.
    std::thread::sleep(Duration::from_millis(350));
    let metrics = agent.scrape_until("five fill ratios", |metrics| {
        fills(metrics, &listener).0.last() == Some(&5)
    });
    // 1 to 5 of 4: the queue holds one more than its limit.
    let (buckets, sum) = fills(&metrics, &listener);
    assert_eq!(buckets, [0, 1, 2, 3, 3, 4, 5], "{}", metrics.text);
    assert!((sum - 3.75).abs() < 1e-6, "{sum}");
    drop(sockets);
}

#[test]
fn a_connection_that_was_reset_while_it_waited_is_accepted_from_its_port() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("reset").unwrap();
    let listener = listener(&ns, 8);
    for _ in 0..3 {
        let socket = queue(&listener);
        abort(socket).unwrap();
    }
    wait_until(PATIENCE, "three resets", || {
        Ok(Counters::read_in(&ns)?.get("Tcp", "EstabResets") >= 3)
    })
    .unwrap();
    assert_eq!(listener.accept_all().unwrap().len(), 3);
    let netns = ns.inode();
    let labels: Labels<'_> = &[("netns", &netns), ("local_port", &listener.port())];
    let accepts = |metrics: &Metrics| metrics.sum("netobs_tcp_accepts_total", labels);
    agent.scrape_until("three accepts", |metrics| accepts(metrics) == 3);
}

#[test]
fn cookies_are_their_listeners_where_they_can_be_told() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::shared();
    for family in [Family::V4, Family::V6] {
        let ns = NetNs::new("cookies").unwrap();
        ns.sysctl("net.ipv4.tcp_syncookies", "2").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let [one, other] = [3, 3].map(|backlog| {
            let builder = Listener::builder(any(family)).backlog(backlog);
            builder.open(&ns).unwrap()
        });
        for (listener, answered) in [(&one, 2), (&other, 1)] {
            for n in 0..3 {
                let mut client = peer.client(7200 + n, listener.port());
                client.half_open(PATIENCE).unwrap();
                if n < answered {
                    client.ack().unwrap();
                }
            }
        }
        peer.client(7300, one.port()).stray(Flags::ACK).unwrap(); // a made up cookie
        let kernel = Counters::read_in(&ns).unwrap();
        let counters = ["SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed"];
        let counted = counters.map(|counter| kernel.get("TcpExt", counter));
        assert_eq!(counted, [6, 3, 1]);
        let netns = ns.inode();
        let told = |metrics: &Metrics, port: Option<u16>| {
            ["sent", "received", "failed"].map(|outcome| {
                let port = port.map(|port| port.to_string());
                let mut labels: Vec<(&str, &dyn std::fmt::Display)> =
                    vec![("netns", &netns), ("outcome", &outcome)];
                if let Some(port) = &port {
                    labels.push(("local_port", port));
                }
                metrics.sum(COOKIES, &labels)
            })
        };
        let metrics = agent.scrape();
        let unavailable: Labels<'_> = &[("signal", &"syn_cookies"), ("method", &"none")];
        if metrics.get("netobs_signal_info", unavailable).is_some() {
            assert_eq!(told(&metrics, None), [0; 3], "{}", metrics.text);
            continue;
        }
        let metrics = agent.scrape_until("all cookies", |metrics| told(metrics, None) == counted);
        assert_eq!(told(&metrics, Some(one.port())), [3, 2, 1]);
        assert_eq!(told(&metrics, Some(other.port())), [3, 1, 0]);
    }
}
