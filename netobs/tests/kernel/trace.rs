//! `netobs trace`: live, from the recorder's files, and from an agent; bursts, and what a kill costs.

use std::{
    io::{BufRead, BufReader, Read},
    net::UdpSocket,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use testbed::{
    Family, Link, Listener, NetNs, RawPeer,
    dns::{self, NameServer},
    require, scenario, wait_until,
    witness::wait_for,
};

use crate::support::{Agent, PATIENCE, agent::binary, any, init::Watch};

/// Port of the blackhole in [`scenario::syn_blackhole`].
const SILENT_PORT: u64 = 9;

/// A running `netobs trace`, killed on drop.
struct Tracer {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    said: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Tracer {
    /// Starts it with these arguments more, and waits until it watches.
    fn start(args: &[&str]) -> Self {
        let tracer = Self::spawn(args, true);
        let ready = wait_until(PATIENCE, "the trace to be ready", || {
            Ok(tracer.said().contains(" watching"))
        });
        ready.unwrap_or_else(|error| panic!("{error}: {}", tracer.said()));
        tracer
    }

    fn spawn(args: &[&str], read: bool) -> Self {
        let mut all = vec!["trace", "--json", "--log-level", "info"];
        all.extend(args);
        let mut command = binary(&all);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (lines, said) = (
            Arc::<Mutex<Vec<Value>>>::default(),
            Arc::<Mutex<String>>::default(),
        );
        let mut readers = Vec::new();
        let (to, stderr) = (Arc::clone(&said), child.stderr.take().unwrap());
        readers.push(std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut said = to.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        }));
        if read {
            let (to, stdout) = (Arc::clone(&lines), child.stdout.take().unwrap());
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let line = serde_json::from_str(&line).expect(&line);
                    to.lock().unwrap().push(line);
                }
            }));
        }
        Self {
            child,
            lines,
            said,
            readers,
        }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for its end, which must be a good one, and returns what it wrote and said.
    fn end(mut self) -> (Vec<Value>, String) {
        let status = wait_for(PATIENCE, "the trace to end", || {
            Ok(self.child.try_wait()?)
        });
        let status = status.unwrap_or_else(|error| panic!("{error}: {}", self.said()));
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        assert_eq!(status.code(), Some(0), "{status}: {}", self.said());
        (self.lines(), self.said())
    }

    /// Ctrl-C.
    fn interrupt(self) -> (Vec<Value>, String) {
        self.signal(Signal::SIGINT);
        self.end()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn linked() -> (NetNs, NetNs, Link) {
    let (a, b) = (NetNs::new("ta").unwrap(), NetNs::new("tb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    (a, b, link)
}

/// The sum of `detail.drops`.
fn drops<'a>(lines: impl IntoIterator<Item = &'a Value>) -> u64 {
    let drops = lines
        .into_iter()
        .map(|line| line["detail"]["drops"].as_u64());
    drops.map(Option::unwrap).sum()
}

#[test]
fn every_retransmission_is_a_line() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let (a, b, link) = linked();
    let netns = a.inode().to_string();
    let tracer = Tracer::start(&["retransmit", "--netns", &netns]);
    let watch = Watch::start();
    scenario::syn_blackhole(&link, Family::V4, 25, 1).unwrap();
    let hidden = watch.map_or(0, |watch| {
        watch.on_init("tcp_retransmit_skb", &format!("dport={SILENT_PORT} "))
    });
    let sent = 25 - hidden;
    wait_until(PATIENCE, "a line for each SYN sent again", || {
        Ok(tracer.lines().len() as u64 >= sent)
    })
    .unwrap();
    let (lines, said) = tracer.interrupt();
    assert_eq!(lines.len() as u64, sent, "{said}");
    let me = u64::from(std::process::id());
    for line in &lines {
        assert_eq!(line["event"], "retransmit");
        assert_eq!(line["detail"]["type"], "syn");
        assert_eq!(line["netns"], a.inode());
        assert_eq!(line["peer"]["port"], SILENT_PORT);
        assert_eq!(
            line["local"]["address"],
            link.a.address(Family::V4, 0).ip().to_string()
        );
        assert_eq!(line["socket"]["role"], "client");
        assert_eq!(line["owner"]["pid"], me, "{line}");
    }
    let summary = format!(" {sent} shown, ");
    assert!(
        said.contains(&summary) && said.contains(" filtered, 0 lost\n"),
        "{said}"
    );
    drop(b);
}

#[test]
fn lines_of_a_listener_add_up_to_its_drops() {
    require!(require::root());
    let ns = NetNs::new("tdrop").unwrap();
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(2);
    let (one, other) = (builder.open(&ns).unwrap(), builder.open(&ns).unwrap());
    let port = one.port().to_string();
    let tracer = Tracer::start(&["listen-drop", "--port", &port]);
    for listener in [&one, &other] {
        listener.fill().unwrap();
        scenario::overflow_syns(listener, 37).unwrap();
    }
    wait_until(PATIENCE, "all drops to be told", || {
        Ok(drops(&tracer.lines()) >= 37)
    })
    .unwrap();
    let (lines, said) = tracer.interrupt();
    assert_eq!(drops(&lines), 37, "{said}");
    let me = u64::from(std::process::id());
    for line in &lines {
        assert_eq!(line["event"], "listen-drop");
        assert_eq!(line["local"]["port"], one.port());
        assert_eq!(line["detail"]["stage"], "syn", "{line}");
        assert_eq!(line["detail"]["reason"], "accept_queue_full", "{line}");
        assert_eq!(line["detail"]["accept_queue_limit"], 2);
        // The listener is older than the trace.
        assert_eq!(line["owner"]["pid"], me, "{line}");
        // Where SYNs have no event, it is said, here and at the start.
        assert_eq!(
            line["method"] == "poll",
            said.contains("has no event for a SYN"),
            "{line} of {lines:?}: {said}"
        );
    }
}

#[test]
fn dropped_final_acks_have_peers() {
    require!(require::root(), require::command("ip"), require::tun());
    for family in [Family::V4, Family::V6] {
        let ns = NetNs::new("tack").unwrap();
        let peer = RawPeer::new(&ns, family).unwrap();
        let listener = Listener::builder(any(family)).backlog(8).open(&ns).unwrap();
        let netns = ns.inode().to_string();
        let tracer = Tracer::start(&["listen-drop", "--netns", &netns]);
        let acks = scenario::final_ack_overflow(&peer, &listener, 4, 3).unwrap();
        wait_until(PATIENCE, "all drops to be told", || {
            Ok(drops(&tracer.lines()) >= 12)
        })
        .unwrap();
        let (lines, said) = tracer.interrupt();
        assert_eq!(drops(&lines), 12, "{said}");
        let seen: Vec<&Value> = lines
            .iter()
            .filter(|line| line["method"] == "event")
            .collect();
        // Elsewhere there is an event now and then, with one peer.
        assert!(!seen.is_empty(), "{lines:?}");
        for line in seen {
            assert_eq!(line["detail"]["stage"], "ack", "{line}");
            assert_ne!(line["peer"]["port"], Value::Null, "{line}");
            assert_ne!(line["peer"]["port"], 0, "{line}");
            assert_eq!(line["local"]["port"], listener.port(), "{line}");
        }
        drop(acks);
    }
}

#[test]
fn lookups_are_shown_when_they_are_named() {
    require!(require::root());
    let ns = NetNs::new("tdns").unwrap();
    let server = NameServer::open(&ns, "127.0.0.1".parse().unwrap()).unwrap();
    let socket = ns.run(|| UdpSocket::bind("127.0.0.1:0")).unwrap();
    socket.connect(server.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let netns = ns.inode().to_string();
    let tracer = Tracer::start(&["dns", "--netns", &netns]);
    let mut answer = [0; 512];
    for (id, name) in [(1, "ok.example"), (2, "nx.example")] {
        socket.send(&dns::query(id, name, 28)).unwrap();
        socket.recv(&mut answer).unwrap();
    }
    wait_until(PATIENCE, "two lookups", || Ok(tracer.lines().len() >= 2)).unwrap();
    let (lines, said) = tracer.interrupt();
    assert_eq!(lines.len(), 2, "{said}");
    for (line, (name, code)) in lines
        .iter()
        .zip([("ok.example", "NOERROR"), ("nx.example", "NXDOMAIN")])
    {
        assert_eq!(line["event"], "dns");
        assert_eq!(line["detail"]["question"], name, "{line}");
        assert_eq!(line["detail"]["type"], "AAAA");
        assert_eq!(line["detail"]["response_code"], code);
        assert_eq!(line["owner"]["pid"], std::process::id());
    }
}

#[test]
fn it_ends_when_enough_was_shown_or_nobody_reads() {
    require!(require::root());
    let ns = NetNs::new("tend").unwrap();
    let netns = ns.inode().to_string();
    let tracer = Tracer::start(&["--netns", &netns, "--count", "3"]);
    let open = || {
        Listener::builder("127.0.0.1:0".parse().unwrap())
            .open(&ns)
            .unwrap()
    };
    let _listeners: Vec<Listener> = (0..5).map(|_| open()).collect();
    let (lines, said) = tracer.end();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(said.contains(" 3 shown"), "{said}");

    // Nothing is written, and still it notices.
    let mut tracer = Tracer::spawn(&["--netns", &netns], false);
    wait_until(PATIENCE, "the trace to be ready", || {
        Ok(tracer.said().contains(" ready"))
    })
    .unwrap();
    drop(tracer.child.stdout.take());
    tracer.end();

    let tracer = Tracer::start(&["--netns", &netns, "--duration", "1s"]);
    let (_, said) = tracer.end();
    assert!(said.contains(" 0 shown"), "{said}");
}

#[test]
fn an_output_that_stands_still_does_not_keep_it_from_ending() {
    require!(require::root());
    let ns = NetNs::new("tslow").unwrap();
    let netns = ns.inode().to_string();
    let mut tracer = Tracer::spawn(&["--netns", &netns], false);
    wait_until(PATIENCE, "the trace to be ready", || {
        Ok(tracer.said().contains(" ready"))
    })
    .unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    // More than a pipe holds.
    for _ in 0..400 {
        drop(Listener::builder(address).open(&ns).unwrap());
    }
    std::thread::sleep(Duration::from_millis(300));
    tracer.signal(Signal::SIGTERM);
    let status = wait_for(PATIENCE, "the trace to end", || {
        Ok(tracer.child.try_wait()?)
    })
    .unwrap();
    assert_eq!(status.code(), Some(0), "{}", tracer.said());
    wait_until(PATIENCE, "its last words", || {
        Ok(tracer.said().contains(" events seen, "))
    })
    .unwrap();
    assert!(tracer.said().contains("not written: "), "{}", tracer.said());
    let mut written = String::new();
    let mut stdout = tracer.child.stdout.take().unwrap();
    stdout.read_to_string(&mut written).unwrap();
    assert!(written.lines().count() > 50, "{written}");
}

/// Bins are those of the kernel's clock: an agent that did not run meanwhile finds the same.
#[test]
fn a_burst_while_the_agent_is_stopped_is_found_afterwards() {
    const BINS: &str = "netobs_tcp_retransmits_per_100ms";
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let agent = Agent::start(&[]);
    let (a, _b, link) = linked();
    let netns = a.inode();
    let name = |part: &str| format!("{BINS}_{part}");
    let before = agent.scrape_until("the namespace's bins", |metrics| {
        metrics.get(&name("count"), &[("netns", &netns)]).is_some()
    });
    let begun = Instant::now();
    let signal = |signal| kill(Pid::from_raw(agent.pid().cast_signed()), signal).unwrap();
    signal(Signal::SIGSTOP);
    scenario::syn_blackhole(&link, Family::V4, 40, 1).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    signal(Signal::SIGCONT);
    let after = agent.scrape_until("the burst", |metrics| {
        metrics.get(&name("sum"), &[("netns", &netns)]) == Some(40.0)
    });
    let elapsed = begun.elapsed().as_secs_f64();
    let get = |metrics: &crate::support::Metrics, part: &str, le: &str| {
        let labels: crate::support::metrics::Labels<'_> = &[("netns", &netns), ("le", &le)];
        metrics.get(&name(part), labels).unwrap()
    };
    let count = |metrics: &crate::support::Metrics| {
        metrics.get(&name("count"), &[("netns", &netns)]).unwrap()
    };
    let bins = count(&after) - count(&before);
    assert!(
        (elapsed * 10.0 - 12.0..elapsed * 10.0 + 12.0).contains(&bins),
        "{bins} bins in {elapsed} seconds"
    );
    // Their timers began within milliseconds of each other.
    let with_any = count(&after) - get(&after, "bucket", "0.0");
    assert!((1.0..=6.0).contains(&with_any), "{}", after.text);
    assert!(
        count(&after) - get(&after, "bucket", "10.0") >= 1.0,
        "{}",
        after.text
    );
}

#[test]
fn listen_drops_are_in_bins() {
    require!(require::root());
    let agent = Agent::start(&[]);
    let ns = NetNs::new("tbins").unwrap();
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(2);
    let listener = builder.open(&ns).unwrap();
    listener.fill().unwrap();
    scenario::overflow_syns(&listener, 500).unwrap();
    let (netns, port) = (ns.inode(), listener.port());
    let labels: crate::support::metrics::Labels<'_> = &[("netns", &netns), ("local_port", &port)];
    let sum = "netobs_tcp_listen_drops_per_100ms_sum";
    let metrics = agent.scrape_until("the drops in bins", |metrics| {
        metrics.get(sum, labels) == Some(500.0)
    });
    let get = |name: &str| metrics.get(name, labels).unwrap();
    let all = get("netobs_tcp_listen_drops_per_100ms_count");
    let zero = metrics
        .get(
            "netobs_tcp_listen_drops_per_100ms_bucket",
            &[("netns", &netns), ("local_port", &port), ("le", &"0.0")],
        )
        .unwrap();
    assert!(
        (1.0..=10.0).contains(&(all - zero)),
        "{all} bins, {zero} empty"
    );
}

#[test]
fn what_was_recorded_survives_a_kill() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let path = path.to_str().unwrap();
    let agent = Agent::start(&["--recorder.path", path]);
    let (a, _b, link) = linked();
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(2);
    let listener = builder.open(&a).unwrap();
    listener.fill().unwrap();
    scenario::overflow_syns(&listener, 23).unwrap();
    let watch = Watch::start();
    scenario::syn_blackhole(&link, Family::V4, 20, 1).unwrap();
    let hidden = watch.map_or(0, |watch| {
        watch.on_init("tcp_retransmit_skb", &format!("dport={SILENT_PORT} "))
    });
    // Each retransmission, and the drops in one line or more.
    let metrics = agent.recorded(21 - hidden);
    assert_eq!(metrics.sum("netobs_recorder_errors_total", &[]), 0);
    assert_eq!(metrics.get("netobs_recorder_writing", &[]), Some(1.0));
    agent.kill();

    let netns = a.inode().to_string();
    let holds = |lines: &[Value]| {
        let (again, dropped): (Vec<&Value>, Vec<&Value>) = lines
            .iter()
            .filter(|line| line["event"] != "listener")
            .partition(|line| line["event"] == "retransmit");
        assert_eq!(again.len() as u64, 20 - hidden);
        let dropped = dropped
            .into_iter()
            .filter(|line| line["event"] == "listen-drop");
        assert_eq!(drops(dropped.clone()), 23);
        for line in dropped {
            assert_eq!(line["owner"]["pid"], std::process::id(), "{line}");
        }
    };
    let replay = |args: &[&str]| {
        let mut all = vec!["--netns", &netns];
        all.extend(args);
        Tracer::spawn(&all, true).end()
    };
    let (lines, said) = replay(&["--from", path]);
    holds(&lines);
    assert!(!said.contains("could not be read"), "{said}");
    let (lines, _) = replay(&["--from", path, "--since", "-10m", "--until", "now"]);
    holds(&lines);
    let (lines, _) = replay(&["--from", path, "--until", "-10m"]);
    assert!(lines.is_empty(), "{lines:?}");

    // Another agent goes on there, and tells of it.
    let agent = Agent::start(&["--recorder.path", path]);
    let url = format!("http://{}", agent.address());
    let (lines, _) = replay(&["--agent", &url, "--since", "-10m"]);
    holds(&lines);
    let (lines, _) = replay(&["--agent", &url, "retransmit", "--count", "2"]);
    assert_eq!(lines.len(), 2);
    agent.stop();
    let (lines, _) = replay(&["--from", path]);
    holds(&lines);
}
