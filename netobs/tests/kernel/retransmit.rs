//! Segments sent again: how many, by whom, and why.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use testbed::{Family, Link, Listener, NetNs, RawPeer, link::Offload, require, scenario};

use crate::support::{
    Agent, Ledger, Metrics, PATIENCE, any,
    books::{FAILURES, SEGMENTS, finally},
    init::Watch,
    metrics::Labels,
    settled,
};

/// Port of the blackhole in [`scenario::syn_blackhole`].
const SILENT_PORT: u16 = 9;

fn linked() -> (NetNs, NetNs, Link) {
    let (a, b) = (NetNs::new("ra").unwrap(), NetNs::new("rb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    (a, b, link)
}

/// Segments of a namespace by type.
fn of_type(metrics: &Metrics, netns: u32, kind: &str) -> u64 {
    metrics.sum(SEGMENTS, &[("netns", &netns), ("type", &kind)])
}

/// Events that came on top of process 1, where this kernel hides them: `None` without evidence.
fn hidden(watch: Option<&Watch>, event: &str, detail: &str) -> u64 {
    watch.map_or(0, |watch| watch.on_init(event, detail))
}

#[test]
fn swallowed_syns_are_the_clients() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = Agent::shared();
    let watch = Watch::start();
    let (a, _b, link) = linked();
    let ledger = Ledger::from_birth(&a);
    let mut sent = 0;
    for (family, n, rounds) in [(Family::V4, 20, 1), (Family::V6, 30, 1), (Family::V4, 7, 2)] {
        scenario::syn_blackhole(&link, family, n, rounds).unwrap();
        sent += u64::from(n) * u64::from(rounds);
        let metrics = finally(&ledger, agent);
        let netns = a.inode();
        let labels: Labels<'_> = &[
            ("netns", &netns),
            ("role", &"client"),
            ("port", &SILENT_PORT),
        ];
        assert_eq!(metrics.sum(SEGMENTS, labels), sent);
        assert_eq!(metrics.sum(SEGMENTS, &[("netns", &netns)]), sent);
        let detail = format!("dport={SILENT_PORT} ");
        let hidden = hidden(watch.as_ref(), "tcp_retransmit_skb", &detail);
        let seen = of_type(&metrics, netns, "syn");
        assert!(
            (sent - hidden..=sent).contains(&seen),
            "{seen} of {sent} SYNs seen, {hidden} on top of process 1"
        );
        assert_eq!(of_type(&metrics, netns, "other"), sent - seen);
        assert_eq!(metrics.sum(FAILURES, &[("netns", &netns)]), 0);
    }
}

#[test]
fn unanswered_syn_acks_are_the_servers() {
    require!(require::root(), require::command("ip"), require::tun());
    for (family, n, rounds) in [(Family::V4, 40, 1), (Family::V6, 25, 2)] {
        let agent = Agent::shared();
        let watch = Watch::start();
        let ns = NetNs::new("synack").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let listener = Listener::builder(any(family))
            .backlog(100)
            .open(&ns)
            .unwrap();
        scenario::syn_ack_retransmits(&peer, &listener, n, rounds).unwrap();
        let sent = u64::from(n) * u64::from(rounds);
        let detail = format!("sport={} ", listener.port());
        let hidden = hidden(watch.as_ref(), "tcp_retransmit_synack", &detail);
        let ledger = Ledger::from_birth(&ns);
        assert_eq!(ledger.counted("Tcp", "RetransSegs"), sent);

        let metrics = settled(agent, &ns);
        let netns = ns.inode();
        let labels: Labels<'_> = &[
            ("netns", &netns),
            ("role", &"server"),
            ("port", &listener.port()),
            ("type", &"syn_ack"),
        ];
        let seen = metrics.sum(SEGMENTS, labels);
        assert_eq!(metrics.sum(SEGMENTS, &[("netns", &netns)]), seen);
        // No socket of the kernel remembers what no event told: the agent says that it is missing.
        for counter in ["Tcp_RetransSegs", "TcpExt_TCPSynRetrans"] {
            let labels: Labels<'_> = &[("netns", &netns), ("counter", &counter)];
            let missing = metrics.sum("netobs_ledger_unattributed", labels);
            assert_eq!(missing, sent - seen, "{counter}");
        }
        // Every one that is missing came on top of process 1. On a kernel that does not hide those,
        // none is missing.
        let missing = sent - seen;
        assert!(
            missing == hidden || missing == 0,
            "{missing} of {sent} not seen, {hidden} on top of process 1"
        );
        // The RSTs that ended the handshakes were no listen drops.
        assert_eq!(ledger.counted("TcpExt", "ListenDrops"), 0);
    }
}

/// A connection whose SYN-ACK was sent again begins with that in its `total_retrans`: counted once, as
/// a SYN-ACK, and not again as something of the connection.
#[test]
fn a_syn_ack_sent_again_is_not_the_connections_too() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::start(&[]);
    let watch = Watch::start();
    let ns = NetNs::new("late").unwrap();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    let listener = Listener::builder(any(Family::V4))
        .backlog(100)
        .open(&ns)
        .unwrap();
    let ledger = Ledger::from_birth(&ns);
    let begin = |port| {
        let mut client = peer.client(port, listener.port());
        client.half_open(PATIENCE).unwrap();
        client
    };
    let clients: Vec<_> = (3000..3010).map(begin).collect();
    testbed::wait_until(PATIENCE, "every SYN-ACK to be sent again", || {
        Ok(ledger.counted("Tcp", "RetransSegs") == 10)
    })
    .unwrap();
    clients.iter().for_each(|client| client.ack().unwrap());
    let taken: Vec<_> = clients.iter().map(|_| listener.accept().unwrap()).collect();
    let detail = format!("sport={} ", listener.port());
    let hidden = hidden(watch.as_ref(), "tcp_retransmit_synack", &detail);
    clients.iter().for_each(|client| client.rst().unwrap());
    drop(taken);
    let netns = ns.inode();
    let metrics = agent.scrape_until("the SYN-ACKs", |metrics| {
        of_type(metrics, netns, "syn_ack") + hidden >= 10
    });
    assert_eq!(of_type(&metrics, netns, "other"), 0, "{}", metrics.text);
    assert_eq!(metrics.sum(SEGMENTS, &[("netns", &netns)]), 10 - hidden);
}

fn lossy(family: Family, joined: bool) {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = Agent::shared();
    let (a, b, link) = linked();
    if !joined {
        link.a.set_offload(Offload::Tso, false).unwrap();
        link.a.set_offload(Offload::Gso, false).unwrap();
    }
    let ledger = Ledger::from_birth(&a);
    let transfer = scenario::lossy_transfer(&link, family, 4 << 20, 30).unwrap();
    let sent = u64::from(transfer.retransmitted);
    assert!(sent > 0, "{transfer:?}");
    let metrics = finally(&ledger, agent);
    let netns = a.inode();
    assert_eq!(ledger.counted("Tcp", "RetransSegs"), sent, "{transfer:?}");
    assert_eq!(metrics.sum(SEGMENTS, &[("netns", &netns)]), sent);
    // Its remote port is one of those that the kernel chooses.
    let labels: Labels<'_> = &[("netns", &netns), ("role", &"client"), ("port", &0)];
    assert_eq!(metrics.sum(SEGMENTS, labels), sent);
    let types = ["timeout", "fast", "tail_loss_probe", "other"];
    let kinds = types.map(|kind| of_type(&metrics, netns, kind));
    assert_eq!(kinds.iter().sum::<u64>(), sent, "{kinds:?}");
    assert!(kinds[1] > 0, "no fast retransmission: {kinds:?}");
    finally(&Ledger::from_birth(&b), agent);
}

#[test]
fn a_lossy_transfer_over_ipv4_adds_up() {
    lossy(Family::V4, true);
}

#[test]
fn a_lossy_transfer_over_ipv6_adds_up() {
    lossy(Family::V6, true);
}

#[test]
fn a_lossy_transfer_in_single_segments_adds_up() {
    lossy(Family::V4, false);
}

#[test]
fn sends_that_fail_late_are_segments_and_failures() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = Agent::shared();
    let (a, _b, link) = linked();
    let ledger = Ledger::from_birth(&a);
    let mut sent = 0;
    for (family, n, rounds) in [(Family::V4, 10, 1), (Family::V6, 5, 2)] {
        scenario::failing_sends(&link, family, n, rounds).unwrap();
        sent += u64::from(n) * u64::from(rounds);
        let metrics = finally(&ledger, agent);
        let netns = a.inode();
        assert_eq!(metrics.sum(SEGMENTS, &[("netns", &netns)]), sent);
        // Up to 6.12 no event tells of a failure that comes after the count.
        let told = of_type(&metrics, netns, "timeout");
        assert_eq!(metrics.sum(FAILURES, &[("netns", &netns)]), told);
        assert_eq!(of_type(&metrics, netns, "other"), sent - told);
    }
}

#[test]
fn sends_that_fail_early_are_failures_only() {
    const FAILING: u16 = 6;
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = Agent::shared();
    let watch = Watch::start();
    let (a, _b, link) = linked();
    let ledger = Ledger::from_birth(&a);
    scenario::unroutable_sends(&link, Family::V4, FAILING).unwrap();
    let metrics = finally(&ledger, agent);
    let netns = a.inode();
    assert_eq!(metrics.sum(SEGMENTS, &[("netns", &netns)]), 0);
    if let Some(watch) = watch {
        // Told on kernels whose tracepoint fires on failures as well; connections that an earlier test has
        // left may go on failing, so the scenario's own number is what counts.
        let told = watch.all("tcp_retransmit_skb", "err=-") > 0;
        let hidden = watch.on_init("tcp_retransmit_skb", "err=-");
        let failures = metrics.sum(FAILURES, &[("netns", &netns)]);
        let expected: u64 = if told { FAILING.into() } else { 0 };
        assert!(
            (expected.saturating_sub(hidden)..=expected).contains(&failures),
            "{failures} failures, {expected} expected, {hidden} events on top of process 1"
        );
    }
}

#[test]
fn what_a_connection_sent_again_before_the_agent_is_not_credited() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let (a, _b, link) = linked();
    let mut open = scenario::OpenTransfer::start(&link, Family::V4).unwrap();
    open.send(2 << 20, 30).unwrap();
    let before = open.retransmitted().unwrap();
    assert!(before > 0);
    let ledger = Ledger::from_now(&a);
    let agent = Agent::start(&[]);
    let metrics = finally(&ledger, &agent);
    assert_eq!(metrics.sum(SEGMENTS, &[("netns", &a.inode())]), 0);

    open.send(2 << 20, 30).unwrap();
    let again = u64::from(open.retransmitted().unwrap() - before);
    assert!(again > 0);
    open.close().unwrap();
    let metrics = finally(&ledger, &agent);
    assert_eq!(ledger.counted("Tcp", "RetransSegs"), again);
    assert_eq!(metrics.sum(SEGMENTS, &[("netns", &a.inode())]), again);
}

#[test]
fn segments_of_a_listening_port_are_the_servers() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = Agent::shared();
    let (a, _b, link) = linked();
    // Opened by end b: end a accepts and sends.
    let mut open = scenario::OpenTransfer::start_from_server(&link, Family::V6).unwrap();
    open.send(2 << 20, 30).unwrap();
    let sent = u64::from(open.retransmitted().unwrap());
    let port = open.local().unwrap().port();
    open.close().unwrap();
    let metrics = finally(&Ledger::from_birth(&a), agent);
    let labels: Labels<'_> = &[("netns", &a.inode()), ("role", &"server"), ("port", &port)];
    assert!(sent > 0);
    assert_eq!(metrics.sum(SEGMENTS, labels), sent);
}

/// What the host's own queues refuse is counted by the kernel: of a socket of unknown age too.
#[test]
fn sends_that_fail_are_counted_where_older_sockets_are_not_known() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = Agent::start(&["--no-probe", "existing_sockets"]);
    let labels: Labels<'_> = &[("signal", &"retransmits"), ("exactness", &"near_exact")];
    assert_eq!(agent.scrape().get("netobs_signal_info", labels), Some(1.0));
    let (a, _b, link) = linked();
    let ledger = Ledger::from_birth(&a);
    scenario::failing_sends(&link, Family::V4, 8, 1).unwrap();
    let metrics = finally(&ledger, &agent);
    assert_eq!(metrics.sum(SEGMENTS, &[("netns", &a.inode())]), 8);
}

#[test]
fn an_agent_that_starts_while_namespaces_end_knows_all_older_sockets() {
    require!(require::root());
    let over = AtomicBool::new(false);
    let agent = std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    let ns = NetNs::new("brief").unwrap();
                    std::thread::sleep(Duration::from_millis(10));
                    drop(ns);
                }
            });
        }
        let agent = Agent::start(&[]);
        over.store(true, Relaxed);
        agent
    });
    let labels: Labels<'_> = &[("signal", &"retransmits"), ("exactness", &"exact")];
    agent.scrape_until("older sockets to be known", |metrics| {
        metrics.get("netobs_signal_info", labels) == Some(1.0)
    });
}
