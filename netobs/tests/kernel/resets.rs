//! Resets: which way, of which end, in which state, and why.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use testbed::{
    Counters, Family, Link, Listener, NetNs, Ns, RawPeer, listener::abort, raw::Flags, require,
    scenario, wait_until,
};

use crate::support::{Agent, Metrics, PATIENCE, any, metrics::Labels};

const RESETS: &str = "netobs_tcp_resets_total";

fn linked() -> (NetNs, NetNs, Link) {
    let (a, b) = (NetNs::new("xa").unwrap(), NetNs::new("xb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    (a, b, link)
}

fn counted(ns: &Ns, group: &str, name: &str) -> u64 {
    Counters::read_in(ns).unwrap().get(group, name)
}

fn resets(metrics: &Metrics, ns: &Ns, more: Labels<'_>) -> u64 {
    let netns = ns.inode();
    let mut labels: Vec<(&str, &dyn std::fmt::Display)> = vec![("netns", &netns)];
    labels.extend(more);
    metrics.sum(RESETS, &labels)
}

/// Whether this kernel shows resets that have no full socket: the agent says so.
fn sees_all(metrics: &Metrics) -> bool {
    // Near exact: something was skipped at some time, in another test's storm.
    ["exact", "near_exact"].iter().any(|exactness| {
        let labels: Labels<'_> = &[("signal", &"resets"), ("exactness", exactness)];
        metrics.sum("netobs_signal_info", labels) == 1
    })
}

/// Connections over a link, and their other ends.
fn pairs(link: &Link, listener: &Listener, n: u32) -> Vec<(TcpStream, TcpStream)> {
    let connect = || TcpStream::connect(listener.address()).unwrap();
    (0..n)
        .map(|_| {
            let client = link.a.ns().run(connect);
            (client, listener.accept().unwrap())
        })
        .collect()
}

#[test]
fn aborts_are_sent_by_one_end_and_received_by_the_other() {
    require!(require::root(), require::command("ip"));
    let agent = Agent::shared();
    for family in [Family::V4, Family::V6] {
        let (a, b, link) = linked();
        let listener = Listener::builder(link.b.address(family, 85))
            .open(&b)
            .unwrap();
        for (client, server) in pairs(&link, &listener, 7) {
            abort(client).unwrap(); // SO_LINGER 0
            wait_until(PATIENCE, "the reset", || Ok(server.take_error()?.is_some())).unwrap();
        }
        let metrics = agent.scrape_until("seven resets", |metrics| {
            resets(metrics, &b, &[]) >= 7 && resets(metrics, &a, &[]) >= 7
        });
        let sent: Labels<'_> = &[
            ("direction", &"sent"),
            ("role", &"client"),
            ("port", &85),
            ("state", &"ESTABLISHED"),
        ];
        let received: Labels<'_> = &[
            ("direction", &"received"),
            ("role", &"server"),
            ("port", &85),
            ("state", &"ESTABLISHED"),
        ];
        assert_eq!(resets(&metrics, &a, sent), 7, "{}", metrics.text);
        assert_eq!(resets(&metrics, &b, received), 7, "{}", metrics.text);
        assert_eq!(
            [resets(&metrics, &a, &[]), resets(&metrics, &b, &[])],
            [7, 7]
        );
        assert_eq!(counted(&a, "Tcp", "OutRsts"), 7);
        assert_eq!(counted(&b, "Tcp", "EstabResets"), 7);
    }
}

#[test]
fn closing_with_unread_data_is_an_abort_of_the_server() {
    require!(require::root(), require::command("ip"));
    let agent = Agent::shared();
    let (a, b, link) = linked();
    let listener = Listener::builder(link.b.address(Family::V4, 86))
        .open(&b)
        .unwrap();
    for (mut client, server) in pairs(&link, &listener, 4) {
        client.write_all(b"nobody reads this").unwrap();
        let mut byte = [0];
        wait_until(PATIENCE, "the data", || Ok(server.peek(&mut byte)? == 1)).unwrap();
        drop(server);
        client.read(&mut byte).unwrap_err();
    }
    let metrics = agent.scrape_until("four resets", |metrics| {
        resets(metrics, &b, &[]) >= 4 && resets(metrics, &a, &[]) >= 4
    });
    let sent: Labels<'_> = &[("direction", &"sent"), ("role", &"server"), ("port", &86)];
    assert_eq!(resets(&metrics, &b, sent), 4, "{}", metrics.text);
    let received: Labels<'_> = &[
        ("direction", &"received"),
        ("role", &"client"),
        ("port", &86),
    ];
    assert_eq!(resets(&metrics, &a, received), 4, "{}", metrics.text);
    assert_eq!(counted(&b, "Tcp", "OutRsts"), 4);
    assert_eq!(counted(&b, "TcpExt", "TCPAbortOnClose"), 4);
}

/// The host closed first, and waits; what comes then is answered by a RST of a socket that is hardly
/// there.
#[test]
fn resets_in_time_wait_are_told_by_their_state() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::shared();
    for family in [Family::V4, Family::V6] {
        let ns = NetNs::new("waits").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let listener = Listener::builder(any(family)).open(&ns).unwrap();
        let clients = (5000..5003).map(|port| {
            let mut client = peer.client(port, listener.port());
            client.half_open(PATIENCE).unwrap();
            client.ack().unwrap();
            drop(listener.accept().unwrap());
            let wanted = |it: &testbed::Segment| {
                it.destination == client.local() && it.flags.has(Flags::FIN)
            };
            // Acknowledged and not answered by a FIN: FIN_WAIT2, kept as a TIME_WAIT socket.
            let fin = peer.receive(PATIENCE, wanted).unwrap();
            let segment = |sequence, payload: &[u8]| testbed::Segment {
                source: client.local(),
                destination: fin.source,
                sequence,
                acknowledgement: fin.sequence.wrapping_add(1),
                flags: Flags::ACK,
                window: 60_000,
                options: Vec::new(),
                payload: payload.to_vec(),
            };
            peer.send(&segment(fin.acknowledgement, b"")).unwrap();
            peer.send(&segment(fin.acknowledgement, b"too late"))
                .unwrap();
            let rst = |it: &testbed::Segment| {
                it.destination == client.local() && it.flags.has(Flags::RST)
            };
            peer.receive(PATIENCE, rst).unwrap();
        });
        assert_eq!(clients.count(), 3);
        let out = counted(&ns, "Tcp", "OutRsts");
        assert_eq!(out, 3);
        let metrics = agent.scrape();
        if !sees_all(&metrics) {
            return; // Without a full socket they have no event.
        }
        let sent: Labels<'_> = &[("direction", &"sent")];
        let metrics = agent.scrape_until("the resets", |metrics| resets(metrics, &ns, sent) >= 3);
        let netns = ns.inode();
        let own: Vec<String> = metrics
            .all(RESETS, &[("netns", &netns)])
            .map(|sample| format!("{:?} {}", sample.labels, sample.value))
            .collect();
        println!("{own:#?}");
        let waiting: Labels<'_> = &[("direction", &"sent"), ("state", &"FIN_WAIT2")];
        let time_wait: Labels<'_> = &[("direction", &"sent"), ("state", &"TIME_WAIT")];
        let both = resets(&metrics, &ns, waiting) + resets(&metrics, &ns, time_wait);
        let listeners: Labels<'_> = &[("role", &"server"), ("port", &listener.port())];
        assert_eq!(resets(&metrics, &ns, listeners), 3, "{own:#?}");
        assert_eq!((resets(&metrics, &ns, &[]), both), (3, 3), "{own:#?}");
    }
}

#[test]
fn refused_connections_are_told_from_other_resets() {
    require!(require::root(), require::command("ip"));
    let agent = Agent::shared();
    let (a, b, link) = linked();
    let target = link.b.address(Family::V4, 9);
    a.run(|| (0..6).for_each(|_| drop(TcpStream::connect(target).unwrap_err())));
    assert_eq!(counted(&b, "Tcp", "OutRsts"), 6);
    let metrics = agent.scrape_until("six refusals", |metrics| resets(metrics, &a, &[]) >= 6);
    let received: Labels<'_> = &[
        ("direction", &"received"),
        ("state", &"SYN_SENT"),
        ("reason", &"refused"),
        ("port", &9),
    ];
    assert_eq!(resets(&metrics, &a, received), 6, "{}", metrics.text);
    assert_eq!(resets(&metrics, &a, &[]), 6);
    if sees_all(&metrics) {
        let sent: Labels<'_> = &[
            ("direction", &"sent"),
            ("state", &""),
            ("reason", &"refused"),
        ];
        assert_eq!(resets(&metrics, &b, sent), 6, "{}", metrics.text);
    }
}

#[test]
fn whatever_is_sent_adds_up_to_the_kernels_count() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::shared();
    for family in [Family::V4, Family::V6] {
        let ns = NetNs::new("strays").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let listener = Listener::builder(any(family)).backlog(2).open(&ns).unwrap();
        // To a port on which nothing listens: no connection, and none asked for.
        let stranger = peer.client(3000, 9);
        (0..5).for_each(|_| stranger.stray(Flags::ACK).unwrap());
        (0..3).for_each(|_| stranger.syn().unwrap());
        // To a listener.
        let stranger = peer.client(3001, listener.port());
        (0..4).for_each(|_| stranger.stray(Flags::ACK).unwrap());
        // A full queue whose owner wants it so.
        ns.sysctl("net.ipv4.tcp_abort_on_overflow", "1").unwrap();
        let acks = scenario::final_ack_overflow(&peer, &listener, 2, 1).unwrap();
        assert_eq!(acks.counted.get("TcpExt", "EmbryonicRsts"), 2);
        let out = counted(&ns, "Tcp", "OutRsts");
        assert_eq!(out, 5 + 3 + 4 + 2);
        let metrics = agent.scrape_until("resets", |metrics| {
            resets(metrics, &ns, &[("direction", &"sent")])
                >= if sees_all(metrics) { out } else { 1 }
        });
        let sent = |more: Labels<'_>| {
            let mut labels: Vec<(&str, &dyn std::fmt::Display)> = vec![("direction", &"sent")];
            labels.extend(more);
            resets(&metrics, &ns, &labels)
        };
        let at_listener = sent(&[("port", &listener.port()), ("role", &"server")]);
        assert_eq!(at_listener, 6, "{}", metrics.text);
        // Where the kernel gives reasons, aborts on overflow are told from other answers.
        if sees_all(&metrics) {
            let aborted = sent(&[("port", &listener.port()), ("reason", &"overflow")]);
            assert_eq!(aborted, 2, "{}", metrics.text);
        }
        if sees_all(&metrics) {
            assert_eq!(sent(&[]), out, "{}", metrics.text);
            assert_eq!(sent(&[("reason", &"refused")]), 3, "{}", metrics.text);
            assert_eq!(sent(&[("state", &"")]), 8, "{}", metrics.text);
        } else {
            assert_eq!(sent(&[]), 6, "{}", metrics.text);
        }
        drop(acks);
    }
}
