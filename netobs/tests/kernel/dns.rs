//! Name lookups: every one is counted, under its response code, its end and who asked.
//!
//! The second witness is the server: what it received and what it answered.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{
    Link, NetNs, Ns,
    dns::{self, NameServer},
    require, wait_until,
};

use crate::support::{Agent, Metrics, PATIENCE, has, metrics::Labels, objects::Objects};

const DURATION: &str = "netobs_dns_lookup_duration_seconds_count";
const UNANSWERED: &str = "netobs_dns_unanswered_total";
const QUERIES: &str = "netobs_dns_queries_total";
const REPEATED: &str = "netobs_dns_repeated_queries_total";
const LATE: &str = "netobs_dns_late_answers_total";
const TRUNCATED: &str = "netobs_dns_truncated_answers_total";
const STRAY: &str = "netobs_dns_stray_answers_total";
const MALFORMED: &str = "netobs_dns_malformed_messages_total";
const LOST: &str = "netobs_events_lost_total";

/// How long a program waits for an answer that is to come.
const WAIT: Duration = Duration::from_secs(10);

fn agent() -> Agent {
    Agent::start(&["--probe", "dns"])
}

/// The loopback address of each family.
fn loopbacks() -> [IpAddr; 2] {
    ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]
}

/// A client's socket in a namespace, connected to a server.
fn client(ns: &Ns, server: SocketAddr) -> UdpSocket {
    let socket = unconnected(ns, server.ip());
    socket.connect(server).unwrap();
    socket
}

fn unconnected(ns: &Ns, like: IpAddr) -> UdpSocket {
    let any: SocketAddr = match like {
        IpAddr::V4(_) => "0.0.0.0:0".parse().unwrap(),
        IpAddr::V6(_) => "[::]:0".parse().unwrap(),
    };
    let socket = ns.run(|| UdpSocket::bind(any)).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket
}

/// Asks, and waits for the answer.
fn ask(socket: &UdpSocket, id: u16, name: &str) {
    socket.send(&dns::query(id, name, 1)).unwrap();
    receive(socket);
}

fn receive(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    socket.recv(&mut buffer).unwrap();
}

/// The name of this process as the kernel has it: that of its first thread.
fn own_name() -> String {
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    name.trim_end().to_owned()
}

/// Sums of a family in a namespace.
struct Sums<'a> {
    metrics: &'a Metrics,
    netns: u32,
}

impl Sums<'_> {
    fn of(&self, family: &str) -> u64 {
        self.metrics.sum(family, &[("netns", &self.netns)])
    }

    fn answered(&self, response: &str) -> u64 {
        let labels: Labels<'_> = &[("netns", &self.netns), ("response_code", &response)];
        self.metrics.sum(DURATION, labels)
    }
}

fn sums<'a>(metrics: &'a Metrics, ns: &Ns) -> Sums<'a> {
    Sums {
        metrics,
        netns: ns.inode(),
    }
}

/// Nothing was lost on the way to these numbers.
fn nothing_lost(metrics: &Metrics) {
    assert_eq!(
        metrics.sum(LOST, &[("probe", &"dns")]),
        0,
        "{}",
        metrics.text
    );
}

#[test]
fn every_lookup_is_counted_under_its_response_code() {
    require!(require::root());
    let agent = agent();
    for ip in loopbacks() {
        let ns = NetNs::new("dnscodes").unwrap();
        let server = NameServer::open(&ns, ip).unwrap();
        let socket = client(&ns, server.address());
        for id in 0..300 {
            ask(&socket, id, "ok.example");
        }
        for (id, name) in [
            (1, "nx.example"),
            (2, "servfail.example"),
            (3, "tc.example"),
        ] {
            ask(&socket, id, name);
        }
        let loose = unconnected(&ns, ip);
        for id in 0..20 {
            let query = dns::query(id, "nx.example", 28);
            loose.send_to(&query, server.address()).unwrap();
            receive(&loose);
        }
        let metrics = agent.scrape();
        let sums = sums(&metrics, &ns);
        assert_eq!(sums.answered("NOERROR"), 301, "{}", metrics.text);
        assert_eq!(sums.answered("NXDOMAIN"), 21);
        assert_eq!(sums.answered("SERVFAIL"), 1);
        assert_eq!(sums.of(DURATION), server.answers());
        assert_eq!(sums.of(QUERIES), server.queries());
        assert_eq!(sums.of(TRUNCATED), 1);
        for family in [UNANSWERED, REPEATED, LATE, STRAY, MALFORMED] {
            assert_eq!(sums.of(family), 0, "{family}");
        }
        let own = own_name();
        let mine: Labels<'_> = &[("netns", &ns.inode()), ("process", &own)];
        assert_eq!(metrics.sum(DURATION, mine), 323, "{}", metrics.text);
        nothing_lost(&metrics);
    }
}

#[test]
fn what_is_not_answered_is_counted_once_and_a_late_answer_beside_it() {
    require!(require::root());
    let agent = agent();
    let ns = NetNs::new("dnsnever").unwrap();
    let mut parties = Vec::new();
    for ip in loopbacks() {
        let server = NameServer::open(&ns, ip).unwrap();
        let socket = client(&ns, server.address());
        for id in 0..7 {
            socket.send(&dns::query(id, "never.example", 1)).unwrap();
        }
        // The same question again is no lookup of its own.
        socket.send(&dns::query(0, "never.example", 1)).unwrap();
        socket.send(&dns::query(0, "never.example", 1)).unwrap();
        socket.send(&dns::query(100, "late.example", 1)).unwrap();
        socket.send(&dns::query(101, "late.example", 1)).unwrap();
        // Another question under the same id ends the first, which no answer can be told for.
        socket.send(&dns::query(200, "never.example", 1)).unwrap();
        ask(&socket, 200, "ok.example");
        parties.push((server, socket));
    }
    let metrics = agent.scrape_until("lookups to be given up", |metrics| {
        sums(metrics, &ns).of(UNANSWERED) == 20
    });
    assert_eq!(sums(&metrics, &ns).of(QUERIES), 26);
    assert_eq!(sums(&metrics, &ns).of(REPEATED), 4);
    assert_eq!(sums(&metrics, &ns).of(LATE), 0);
    for (server, socket) in &parties {
        assert_eq!(server.release().unwrap(), 2);
        receive(socket);
        receive(socket);
    }
    let metrics = agent.scrape();
    assert_eq!(sums(&metrics, &ns).of(LATE), 4, "{}", metrics.text);
    assert_eq!(sums(&metrics, &ns).of(UNANSWERED), 20);
    assert_eq!(sums(&metrics, &ns).of(DURATION), 2);
    assert_eq!(sums(&metrics, &ns).of(STRAY), 0);
    nothing_lost(&metrics);
}

#[test]
fn second_and_forged_answers_are_nobodys_lookups() {
    require!(require::root());
    let agent = agent();
    let ns = NetNs::new("dnsstray").unwrap();
    for ip in loopbacks() {
        let server = NameServer::open(&ns, ip).unwrap();
        let socket = client(&ns, server.address());
        ask(&socket, 1, "twice.example");
        receive(&socket);
        let forged = dns::answer(&dns::query(9, "ok.example", 1), 0);
        server.send(&forged, socket.local_addr().unwrap()).unwrap();
        receive(&socket);
    }
    let metrics = agent.scrape();
    assert_eq!(sums(&metrics, &ns).of(STRAY), 4, "{}", metrics.text);
    assert_eq!(sums(&metrics, &ns).of(DURATION), 2);
}

#[test]
fn lookups_over_a_link_and_to_two_servers_at_once_are_one_each() {
    require!(require::root(), require::command("ip"));
    let agent = agent();
    let (here, there) = (
        NetNs::new("dnshere").unwrap(),
        NetNs::new("dnsthere").unwrap(),
    );
    let link = Link::veth(&here, &there).unwrap();
    for ip in [link.b.v4(), link.b.v6()] {
        let server = NameServer::open(&there, ip).unwrap();
        let socket = unconnected(&here, ip);
        // As musl asks: the same to all servers, from one socket; what comes first counts.
        for id in 0..50 {
            for name in ["never.example", "never.example"] {
                let query = dns::query(id, name, 1);
                socket.send_to(&query, server.address()).unwrap();
            }
            let good = dns::answer(&dns::query(id, "never.example", 1), 0);
            let to = SocketAddr::new(
                if ip.is_ipv4() {
                    link.a.v4()
                } else {
                    link.a.v6()
                },
                socket.local_addr().unwrap().port(),
            );
            server.send(&good, to).unwrap();
            receive(&socket);
        }
        let all = || Ok(server.queries() == 100);
        wait_until(PATIENCE, "the server to have seen all", all).unwrap();
    }
    let metrics = agent.scrape();
    let own = sums(&metrics, &here);
    assert_eq!(own.of(QUERIES), 200, "{}", metrics.text);
    assert_eq!(own.of(REPEATED), 100);
    assert_eq!(own.of(DURATION), 100);
    // The server's side of the same packets is not a client's.
    assert_eq!(sums(&metrics, &there).of(QUERIES), 0);
    nothing_lost(&metrics);
}

#[test]
fn hostile_messages_break_nothing_and_are_counted() {
    require!(require::root());
    let agent = agent();
    let ns = NetNs::new("dnshostile").unwrap();
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let whole = dns::query(7, "ok.example", 1);
    // Cut short at every byte, a name that points at itself, one without end, one of long labels,
    // more than fits, and anything.
    messages.extend((0..whole.len()).map(|cut| whole[..cut].to_vec()));
    let mut looping = whole[..12].to_vec();
    looping.extend_from_slice(&[0xc0, 0x0c, 0, 1, 0, 1]);
    messages.push(looping);
    for (length, byte) in [(9_000, 1), (1_400, 63), (60_000, 0xff), (300, 0)] {
        let mut long = whole[..12].to_vec();
        long.resize(length, byte);
        messages.push(long);
    }
    messages.extend((0..=255).map(|byte| vec![byte; 40]));
    let (mut short, mut asked) = (0, 0);
    let mut buffer = [0; 1 << 16];
    for ip in loopbacks() {
        let server = NameServer::open(&ns, ip).unwrap();
        let socket = client(&ns, server.address());
        let to = socket.local_addr().unwrap();
        for (sent, message) in (1..).zip(&messages) {
            socket.send(message).unwrap();
            // One at a time, lest a full buffer drops one before anybody sees it.
            let there = || Ok(server.queries() >= sent);
            wait_until(PATIENCE, "the server to have seen it", there).unwrap();
            server.send(message, to).unwrap();
            short += u64::from(message.len() < 12);
            // A standard query: neither a response nor another operation.
            asked += u64::from(message.len() >= 12 && message[2] & 0xf8 == 0);
            socket.set_nonblocking(true).unwrap();
            while socket.recv(&mut buffer).is_ok() {}
            socket.set_nonblocking(false).unwrap();
        }
        // And it still works.
        ask(&socket, 60_000, "ok.example");
    }
    let metrics = agent.scrape();
    let sums = sums(&metrics, &ns);
    assert_eq!(sums.of(MALFORMED), 2 * short, "{}", metrics.text);
    assert_eq!(sums.of(QUERIES), asked + 2);
    assert!(sums.answered("NOERROR") >= 2);
    nothing_lost(&metrics);
    agent.stop();
}

#[test]
fn other_traffic_and_tcp_are_passed_over() {
    require!(require::root());
    let agent = agent();
    let ns = NetNs::new("dnsother").unwrap();
    for ip in loopbacks() {
        let listener = ns.run(|| TcpListener::bind((ip, 53))).unwrap();
        let mut stream = ns.run(|| TcpStream::connect((ip, 53))).unwrap();
        stream.write_all(&dns::query(1, "ok.example", 1)).unwrap();
        listener.accept().unwrap();
        let sink = ns.run(|| UdpSocket::bind((ip, 5353))).unwrap();
        let socket = client(&ns, sink.local_addr().unwrap());
        socket.send(&dns::query(1, "ok.example", 1)).unwrap();
        receive(&sink);
    }
    let metrics = agent.scrape();
    for family in [QUERIES, DURATION, STRAY, MALFORMED] {
        assert_eq!(sums(&metrics, &ns).of(family), 0, "{}", metrics.text);
    }
}

#[test]
fn full_maps_and_a_full_ring_are_counted_and_the_counts_stay_right() {
    require!(require::root());
    const ROOM: u64 = 16_384;
    let agent = agent();
    let ns = NetNs::new("dnsfull").unwrap();
    let server = NameServer::open(&ns, loopbacks()[0]).unwrap();
    let socket = client(&ns, server.address());

    // A thousand failures a second and more have no room in the ring while nobody looks.
    let pid = Pid::from_raw(i32::try_from(agent.pid()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    for id in 0..5_000 {
        ask(&socket, id, "servfail.example");
    }
    kill(pid, Signal::SIGCONT).unwrap();
    let metrics = agent.scrape();
    assert_eq!(sums(&metrics, &ns).answered("SERVFAIL"), 5_000);
    let lost: Labels<'_> = &[("probe", &"dns"), ("reason", &"ring_full")];
    assert!(metrics.sum(LOST, lost) > 0, "{}", metrics.text);

    // More lookups at once than are followed. Stopped, lest it gives the first up meanwhile.
    kill(pid, Signal::SIGSTOP).unwrap();
    for id in 0..=u16::MAX {
        socket.send(&dns::query(id, "never.example", 1)).unwrap();
        if u64::from(id) == ROOM + 99 {
            break;
        }
    }
    kill(pid, Signal::SIGCONT).unwrap();
    let lost: Labels<'_> = &[("probe", &"dns"), ("reason", &"map_full")];
    // What other tests ask at the same time takes room, too, and is refused, too.
    let refused = |metrics: &Metrics| ROOM + 100 - sums(metrics, &ns).of(UNANSWERED);
    let metrics = agent.scrape_until("all lookups to be given up or lost", |metrics| {
        sums(metrics, &ns).of(UNANSWERED) <= ROOM && refused(metrics) <= metrics.sum(LOST, lost)
    });
    assert!(refused(&metrics) >= 100, "{}", metrics.text);
    assert_eq!(sums(&metrics, &ns).of(QUERIES), 5_000 + ROOM + 100);
    // And there is room again.
    ask(&socket, 1, "ok.example");
    assert_eq!(sums(&agent.scrape(), &ns).answered("NOERROR"), 1);
}

#[test]
fn a_killed_agent_lets_go_of_the_sockets() {
    require!(require::root());
    let agent = agent();
    let held = Objects::of_process(agent.pid());
    agent.kill();
    wait_until(PATIENCE, "everything of the agent to be gone", || {
        Ok(held.among(&Objects::now()) == Objects::default())
    })
    .unwrap();
    let ns = NetNs::new("dnsfree").unwrap();
    let server = NameServer::open(&ns, loopbacks()[0]).unwrap();
    ask(&client(&ns, server.address()), 1, "ok.example");
}

#[test]
fn without_being_asked_for_it_is_off_and_says_so() {
    require!(require::root());
    let agent = Agent::start(&[]);
    let metrics = agent.scrape();
    let labels: Labels<'_> = &[("signal", &"dns"), ("exactness", &"unavailable")];
    assert_eq!(metrics.sum("netobs_signal_info", labels), 1);
    let attached: Labels<'_> = &[("probe", &"dns")];
    assert_eq!(metrics.all("netobs_probe_attached", attached).count(), 0);
}

/// Programs that resolve names in their own ways, each with its own socket habits.
#[test]
fn python_and_the_c_library_are_told_apart() {
    require!(require::root());
    let agent = agent();
    let ns = NetNs::new("dnsclients").unwrap();
    let server = NameServer::open(&ns, loopbacks()[0]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
    let run = |script: &str| {
        // A file of its own for this one process tree: nothing on the machine changes.
        let script = format!(
            "mount --bind {} /etc/resolv.conf && {script}",
            file.display()
        );
        let status = ns
            .run(|| {
                Command::new("unshare")
                    .args(["--mount", "sh", "-c", &script])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
            })
            .unwrap();
        status.code()
    };
    let asked = |name: &str| {
        let metrics = agent.scrape();
        let labels: Labels<'_> = &[("netns", &ns.inode()), ("process", &name)];
        (metrics.sum(QUERIES, labels), metrics.sum(DURATION, labels))
    };
    if has("getent") && has("unshare") {
        // An answer without a record is an answer; getent then finds nothing (2).
        let before = server.answers();
        assert_eq!(run("exec getent ahosts ok.example"), Some(2));
        let answers = server.answers() - before;
        assert!(answers > 0);
        assert_eq!(asked("getent"), (answers, answers));
    }
    if has("python3") && has("unshare") {
        let before = server.answers();
        let script = "import socket\n\
                      for _ in range(5):\n\
                      \x20   try: socket.getaddrinfo(\"nx.example\", 80)\n\
                      \x20   except socket.gaierror: pass\n";
        let path = folder.path().join("client.py");
        fs::write(&path, script).unwrap();
        assert_eq!(run(&format!("exec python3 {}", path.display())), Some(0));
        let answers = server.answers() - before;
        assert!(answers >= 5);
        assert_eq!(asked("python3"), (answers, answers));
    }
}

/// A real server: answers of its own, refuses, and asks another that never answers.
#[test]
fn dnsmasq_agrees() {
    require!(require::root());
    if !has("dnsmasq") {
        eprintln!("dnsmasq is not here: its part is left out");
        return;
    }
    let agent = agent();
    let ns = NetNs::new("dnsmasq").unwrap();
    // The server behind it, which keeps silent.
    let silent = NameServer::open(&ns, "127.0.0.2".parse().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let dnsmasq = Dnsmasq::start(&ns, &log);
    let servers = loopbacks().map(|ip| SocketAddr::new(ip, dns::PORT));
    wait_until(PATIENCE, "dnsmasq to answer", || {
        // Over TCP, which is not counted.
        let open = |server| ns.run(|| TcpStream::connect(server)).is_ok();
        Ok(servers.into_iter().all(open))
    })
    .unwrap();
    for server in servers {
        let socket = client(&ns, server);
        for id in 0..100 {
            ask(&socket, id, "host.test");
        }
        for id in 0..10 {
            ask(&socket, id, "nothing.test");
        }
        socket.send(&dns::query(500, "far.away", 1)).unwrap();
    }
    let metrics = agent.scrape_until("lookups to be given up", |metrics| {
        sums(metrics, &ns).of(UNANSWERED) >= 3
    });
    let own = own_name();
    let mine = |family: &str| {
        let labels: Labels<'_> = &[("netns", &ns.inode()), ("process", &own)];
        metrics.sum(family, labels)
    };
    assert_eq!(mine(QUERIES), 222, "{}", metrics.text);
    assert_eq!(mine(QUERIES), queries_logged(&log));
    assert_eq!((mine(DURATION), mine(UNANSWERED)), (220, 2));
    let sums = sums(&metrics, &ns);
    assert_eq!(
        (sums.answered("NOERROR"), sums.answered("NXDOMAIN")),
        (200, 20)
    );
    // What dnsmasq asked on its clients' behalf is its own. It keeps its id for the same question.
    let labels: Labels<'_> = &[("netns", &ns.inode()), ("process", &"dnsmasq")];
    assert!(silent.queries() >= 1);
    assert_eq!(metrics.sum(QUERIES, labels), silent.queries());
    assert!(metrics.sum(UNANSWERED, labels) >= 1, "{}", metrics.text);
    drop(dnsmasq);
}

/// How many queries dnsmasq says it received.
fn queries_logged(log: &std::path::Path) -> u64 {
    let text = fs::read_to_string(log).unwrap_or_default();
    let queries = text.lines().filter(|line| line.contains(" query["));
    u64::try_from(queries.count()).unwrap()
}

struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(ns: &Ns, log: &std::path::Path) -> Self {
        let facility = format!("--log-facility={}", log.display());
        let child = ns.run(|| {
            Command::new("dnsmasq")
                .args([
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--no-resolv",
                    "--no-hosts",
                    "--user=root",
                    "--pid-file=",
                    "--bind-interfaces",
                    "--listen-address=127.0.0.1",
                    "--listen-address=::1",
                    "--address=/host.test/192.0.2.1",
                    "--local=/test/",
                    "--server=127.0.0.2",
                    "--log-queries",
                    &facility,
                ])
                .stderr(Stdio::null())
                .spawn()
        });
        Self(child.unwrap())
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
