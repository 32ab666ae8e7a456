//! Real namespaces with changed settings. They need root.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, listen,
    sendto, socket,
};
use testbed::{
    Counters, Family, Listener, NetNs, Ns, RawPeer, connect_nonblocking, require, wait_until,
};

use crate::audit::collect::{Baseline, Collector, Options, Which};
use crate::audit::{Basis, Finding, Report, Selection, Severity, Status, audit};

const PATIENCE: Duration = Duration::from_secs(10);

fn collector(which: Which) -> Collector {
    Collector::new(Options {
        which,
        ..Options::default()
    })
}

fn report(collector: &Collector, baseline: Option<&Baseline>) -> Report {
    audit(
        &collector.snapshot(baseline).unwrap(),
        &Selection::default(),
    )
}

fn found<'r>(report: &'r Report, ns: &Ns, id: &str) -> Option<&'r Finding> {
    report
        .problems()
        .find(|f| f.id == id && f.netns == Some(ns.inode()))
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

/// A listener that asks for 1024, which a `somaxconn` of 16 cuts; the test bed's refuses that.
fn greedy_listener(ns: &Ns) -> TcpListener {
    ns.run(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listen(&listener, Backlog::new(1024).unwrap()).unwrap();
        listener
    })
}

/// Connects more often than a queue of 16 takes, and waits for the overflow.
fn overflow(ns: &Ns, listener: &TcpListener) -> Vec<OwnedFd> {
    let target = listener.local_addr().unwrap();
    let clients = ns.run(|| {
        (0..40)
            .map(|_| connect_nonblocking(target).unwrap())
            .collect()
    });
    wait_until(PATIENCE, "an overflow", || {
        Ok(Counters::read_in(ns)?.get("TcpExt", "ListenOverflows") > 0)
    })
    .unwrap();
    clients
}

#[test]
fn only_the_changed_namespace_has_the_findings_and_overflows_are_proved() {
    require!(require::root());
    let changed = NetNs::new("audita").unwrap();
    let control = NetNs::new("auditb").unwrap();
    for (key, value) in [
        ("net.ipv4.tcp_timestamps", "0"),
        ("net.ipv4.tcp_fastopen", "1539"),
        ("net.core.somaxconn", "16"),
        ("net.ipv4.tcp_tw_reuse", "1"),
        ("net.ipv4.tcp_abort_on_overflow", "1"),
    ] {
        changed.sysctl(key, value).unwrap();
    }
    let listener = greedy_listener(&changed);
    let collector = collector(Which::All);

    let before = report(&collector, None);
    for id in ["001", "011", "012", "020", "043", "045"] {
        let id = format!("NETOBS-TCP-{id}");
        let finding = found(&before, &changed, &id).unwrap_or_else(|| panic!("no {id}"));
        assert_eq!(finding.basis, Some(Basis::Advice), "{id}: {finding:?}");
        assert!(
            found(&before, &control, &id).is_none(),
            "{id} in the other namespace"
        );
    }
    assert!(found(&before, &changed, "NETOBS-TCP-040").is_none());
    let cap = found(&before, &changed, "NETOBS-TCP-043").unwrap();
    assert_eq!(cap.value.as_deref(), Some("16"));
    let default = cap.kernel_default.as_ref().unwrap();
    assert_eq!(default.source, "fresh_namespace");

    let baseline = collector.baseline().unwrap();
    let _clients = overflow(&changed, &listener);
    let after = report(&collector, Some(&baseline));
    for id in ["NETOBS-TCP-040", "NETOBS-TCP-045"] {
        let finding = found(&after, &changed, id).unwrap_or_else(|| panic!("no {id}"));
        assert_eq!(finding.severity, Severity::Critical, "{finding:?}");
        assert_eq!(finding.basis, Some(Basis::Evidence));
        let delta = finding
            .evidence
            .iter()
            .find(|e| e.source == "TcpExt.ListenOverflows");
        let counted = Counters::read_in(&changed)
            .unwrap()
            .get("TcpExt", "ListenOverflows");
        assert!(
            delta
                .and_then(|e| e.delta)
                .is_some_and(|d| d > 0 && d <= counted)
        );
        assert!(found(&after, &control, id).is_none());
    }
    let queue = found(&after, &changed, "NETOBS-TCP-040").unwrap();
    assert!(
        queue
            .message
            .contains(&format!(":{}", listener.local_addr().unwrap().port())),
        "{}",
        queue.message
    );
    assert!(queue.message.contains("cut by somaxconn"));
    let place = queue.fix.as_ref().unwrap();
    assert!(
        place
            .pod_yaml
            .as_deref()
            .is_some_and(|y| y.contains("net.core.somaxconn"))
    );
}

#[test]
fn the_programs_own_backlog_is_told_from_somaxconn() {
    require!(require::root());
    let ns = NetNs::new("auditc").unwrap();
    let listener = Listener::builder(any(0)).backlog(8).open(&ns).unwrap();
    let collector = collector(Which::Mount(ns.path()));
    let _clients = listener.fill().unwrap();
    let report = report(&collector, None);
    let finding = found(&report, &ns, "NETOBS-TCP-041").expect("the queue is full now");
    assert_eq!(
        (finding.severity, finding.basis),
        (Severity::Critical, Some(Basis::Evidence))
    );
    assert!(found(&report, &ns, "NETOBS-TCP-040").is_none());
    // Only the namespace asked for is in the report.
    assert_eq!(report.scopes.len(), 1);
    assert_eq!(report.scopes[0].netns, ns.inode());
}

#[test]
fn ports_towards_one_destination_run_out() {
    require!(require::root());
    let ns = NetNs::new("auditd").unwrap();
    ns.sysctl("net.ipv4.ip_local_port_range", "40000 40019")
        .unwrap();
    let listener = Listener::builder(any(9000)).backlog(64).open(&ns).unwrap();
    let target = listener.target();
    let clients: Vec<OwnedFd> = ns.run(|| {
        (0..19)
            .map(|_| connect_nonblocking(target).unwrap())
            .collect()
    });
    wait_until(PATIENCE, "19 connections", || Ok(listener.queued()? == 19)).unwrap();
    let report = report(&collector(Which::Mount(ns.path())), None);
    let finding = found(&report, &ns, "NETOBS-TCP-070").expect("95 % of the ports are in use");
    assert_eq!(
        (finding.severity, finding.basis),
        (Severity::Critical, Some(Basis::Evidence))
    );
    assert!(
        finding.message.starts_with("19 of 20"),
        "{}",
        finding.message
    );
    drop(clients);
}

#[test]
fn connections_without_time_stamps_are_evidence() {
    require!(require::root());
    let ns = NetNs::new("audite").unwrap();
    ns.sysctl("net.ipv4.tcp_timestamps", "0").unwrap();
    let listener = Listener::builder(any(0)).backlog(64).open(&ns).unwrap();
    let target = listener.target();
    let _client = ns.run(|| connect_nonblocking(target)).unwrap();
    let _server = listener.accept().unwrap();
    let report = report(&collector(Which::Mount(ns.path())), None);
    let finding = found(&report, &ns, "NETOBS-TCP-001").unwrap();
    assert_eq!(
        (finding.severity, finding.basis),
        (Severity::Warning, Some(Basis::Evidence))
    );
}

#[test]
fn handshakes_under_way_are_counted_for_their_listener() {
    require!(require::root(), require::tun());
    let ns = NetNs::new("audith").unwrap();
    let listener = Listener::builder(any(8000)).backlog(64).open(&ns).unwrap();
    let _idle = Listener::builder(any(8001)).backlog(64).open(&ns).unwrap();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    for port in 0..5 {
        peer.client(2000 + port, listener.port())
            .half_open(PATIENCE)
            .unwrap();
    }
    let machine = collector(Which::Mount(ns.path())).snapshot(None).unwrap();
    let listeners = &machine.others[0].sockets.as_ref().unwrap().listeners;
    let queues: BTreeMap<u16, u32> = listeners.iter().map(|l| (l.port, l.syn_queue)).collect();
    assert_eq!(queues, BTreeMap::from([(8000, 5), (8001, 0)]));
}

#[test]
fn fast_open_without_cookies_is_proved_by_connections() {
    require!(require::root());
    let ns = NetNs::new("auditi").unwrap();
    ns.sysctl("net.ipv4.tcp_fastopen", "1539").unwrap();
    let listener = Listener::builder(any(0)).backlog(64).open(&ns).unwrap();
    let collector = collector(Which::Mount(ns.path()));
    let baseline = collector.baseline().unwrap();
    let target: SockaddrStorage = listener.target().into();
    // The first connection asks for a cookie, the second brings data in its SYN.
    for _ in 0..2 {
        ns.run(|| {
            let socket = socket(
                AddressFamily::Inet,
                SockType::Stream,
                SockFlag::empty(),
                SockProtocol::Tcp,
            )
            .unwrap();
            let fast = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
            sendto(socket.as_raw_fd(), b"hello", &target, fast).unwrap();
        });
        listener.accept().unwrap();
    }
    let report = report(&collector, Some(&baseline));
    let finding = found(&report, &ns, "NETOBS-TCP-011").unwrap();
    assert_eq!(
        (finding.severity, finding.basis),
        (Severity::Critical, Some(Basis::Evidence))
    );
    assert!(found(&report, &ns, "NETOBS-TCP-012").is_some());
    assert!(found(&report, &ns, "NETOBS-TCP-013").is_none());
}

#[test]
fn a_server_bit_that_nobody_uses_is_said() {
    require!(require::root());
    let ns = NetNs::new("auditj").unwrap();
    ns.sysctl("net.ipv4.tcp_fastopen", "3").unwrap();
    let _listener = Listener::builder(any(0)).backlog(64).open(&ns).unwrap();
    let report = report(&collector(Which::Mount(ns.path())), None);
    let finding = found(&report, &ns, "NETOBS-TCP-013").unwrap();
    assert_eq!(
        (finding.severity, finding.basis),
        (Severity::Info, Some(Basis::Advice))
    );
}

#[test]
fn a_changed_setting_shows_in_the_next_poll_of_its_namespace() {
    require!(require::root());
    let ns = NetNs::new("auditk").unwrap();
    let collector = collector(Which::Mount(ns.path()));
    let (before, _) = collector.poll().unwrap();
    assert_eq!(
        before[&ns.inode()],
        collector.poll().unwrap().0[&ns.inode()]
    );
    ns.sysctl("net.ipv4.tcp_timestamps", "0").unwrap();
    let (after, _) = collector.poll().unwrap();
    assert_ne!(before[&ns.inode()], after[&ns.inode()]);
}

#[test]
fn a_key_that_is_set_is_never_shown() {
    require!(require::root());
    let ns = NetNs::new("auditf").unwrap();
    ns.sysctl(
        "net.ipv4.tcp_fastopen_key",
        "0badc0de-0badc0de-0badc0de-0badc0de",
    )
    .unwrap();
    let machine = collector(Which::Mount(ns.path())).snapshot(None).unwrap();
    let shown = format!("{machine:?} {:?}", audit(&machine, &Selection::default()));
    assert!(!shown.contains("c0de") && shown.contains("Secret(One)"));
}

#[test]
fn a_namespace_that_is_gone_is_an_error_or_said_to_be_gone() {
    require!(require::root());
    let ns = NetNs::new("auditg").unwrap();
    let path = ns.path();
    let collector = collector(Which::Mount(path.clone()));
    assert!(collector.snapshot(None).is_ok());
    drop(ns);
    assert!(
        collector.snapshot(None).is_err(),
        "{} is still there",
        path.display()
    );
}

#[test]
fn this_machine_can_be_audited() {
    let host = collector(Which::Host);
    let report = report(&host, None);
    assert_eq!(report.scopes.len(), 1);
    assert!(report.findings.iter().any(|f| f.status == Status::Pass));
}

/// Not a benchmark: only holds the audit to the order of magnitude it has to have.
#[test]
fn fifty_namespaces_are_audited_in_a_moment() {
    require!(require::root());
    let _many: Vec<NetNs> = (0..50).map(|_| NetNs::new("auditn").unwrap()).collect();
    let collector = collector(Which::All);
    let began = Instant::now();
    let report = report(&collector, None);
    let took = began.elapsed();
    let began = Instant::now();
    let (prints, cpu) = collector.poll().unwrap();
    assert!(prints.len() > 50);
    eprintln!(
        "poll of the settings: {:?}, {cpu:?} of CPU",
        began.elapsed()
    );
    assert!(report.scopes.len() > 50);
    assert!(took < Duration::from_secs(10), "{took:?}");
    eprintln!("audit of {} namespaces: {took:?}", report.scopes.len());
}
