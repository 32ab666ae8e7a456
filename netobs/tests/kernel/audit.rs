//! `netobs audit` and the auditor in the agent, on settings that the kernel really has.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, socket,
};
use serde_json::Value;
use testbed::{Counters, NetNs, Ns, connect_nonblocking, require, wait_until, witness::wait_for};

use crate::support::{Agent, Metrics, PATIENCE, agent::binary, metrics::Labels};

/// The agent looks at settings every ten seconds, less often where that is slow.
const SOON: Duration = Duration::from_secs(90);
/// Of `netobs audit`, in which queues overflow.
const WINDOW: &str = "4s";

const BINDING: &str = "netobs_tcp_accept_queue_binding_limit";

/// What `netobs audit` came to.
struct Audit {
    code: Option<i32>,
    report: Value,
}

impl Audit {
    /// Runs the command on one namespace.
    fn of(ns: &Ns, args: &[&str]) -> Self {
        let path = ns.path();
        let mut all = vec!["audit", "--json", "--netns", path.to_str().unwrap()];
        all.extend(args);
        let output = binary(&all).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error} in what it wrote; it said: {said}"));
        Self {
            code: output.status.code(),
            report,
        }
    }

    /// The finding of a rule, if it has one.
    fn finding(&self, id: &str) -> Option<&Value> {
        let id = format!("NETOBS-TCP-{id}");
        let findings = self.report["findings"].as_array().unwrap();
        findings
            .iter()
            .find(|finding| finding["id"] == *id && finding["status"] == "finding")
    }

    /// Every rule with a finding, by its number, with severity and basis.
    fn found(&self) -> Vec<String> {
        let findings = self.report["findings"].as_array().unwrap().iter();
        findings
            .filter(|finding| finding["status"] == "finding")
            .map(|finding| format!("{} {}", finding["id"], finding["severity"]))
            .collect()
    }
}

/// A listener that asks for `backlog`, whatever `somaxconn` makes of it. The standard library's calls
/// `listen()` with an argument of its own.
fn listener(ns: &Ns, backlog: i32) -> TcpListener {
    ns.run(|| {
        let any = SockaddrStorage::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let socket = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        bind(socket.as_raw_fd(), &any).unwrap();
        listen(&socket, Backlog::new(backlog).unwrap()).unwrap();
        socket.into()
    })
}

/// Connects more often than a queue of 16 takes; the kernel keeps trying for seconds.
fn overflow(ns: &Ns, listener: &TcpListener) -> Vec<OwnedFd> {
    let target = listener.local_addr().unwrap();
    ns.run(|| {
        (0..40)
            .map(|_| connect_nonblocking(target).unwrap())
            .collect()
    })
}

fn misconfigure(ns: &Ns) {
    for (key, value) in [
        ("net.ipv4.tcp_timestamps", "0"),
        ("net.ipv4.tcp_fastopen", "1539"),
        ("net.core.somaxconn", "16"),
        ("net.ipv4.tcp_abort_on_overflow", "1"),
    ] {
        ns.sysctl(key, value).unwrap();
    }
}

#[test]
fn the_command_tells_what_is_wrong_and_what_it_costs_now() {
    require!(require::root());
    let (changed, control) = (NetNs::new("auditk").unwrap(), NetNs::new("auditc").unwrap());
    misconfigure(&changed);
    let greedy = listener(&changed, 1024);

    let quiet = Audit::of(&changed, &[]);
    for id in ["001", "011", "012", "043", "045"] {
        let finding = quiet
            .finding(id)
            .unwrap_or_else(|| panic!("{id}: {:?}", quiet.found()));
        assert_eq!(finding["basis"], "advice", "{finding}");
        assert_eq!(finding["netns"], changed.inode(), "{finding}");
    }
    assert_eq!(quiet.report["partial"], false, "{}", quiet.report);
    // What this kernel gives a namespace, it shows by itself.
    let timestamps = quiet.finding("001").unwrap();
    assert_eq!(timestamps["value"], "0");
    assert_eq!(timestamps["kernel_default"]["value"], "1", "{timestamps}");
    assert_eq!(timestamps["kernel_default"]["source"], "fresh_namespace");
    let want = if quiet.found().iter().any(|f| f.ends_with("\"critical\"")) {
        3
    } else {
        0
    };
    assert_eq!(quiet.code, Some(want), "{:?}", quiet.found());

    // Nobody tuned the other one: nothing there is above advice of the mildest kind.
    let untouched = Audit::of(&control, &["--fail-on", "warning"]);
    assert_eq!(untouched.code, Some(0), "{:?}", untouched.found());

    // While queues overflow, the same settings are the cause of harm.
    let overflows = || {
        Counters::read_in(&changed)
            .unwrap()
            .get("TcpExt", "ListenOverflows")
    };
    let hurt = std::thread::scope(|scope| {
        let begun = Instant::now();
        let audit = scope.spawn(|| Audit::of(&changed, &["--window", WINDOW]));
        // Until its window is over. What is queued stays so when its client goes.
        while !audit.is_finished() && begun.elapsed() < PATIENCE {
            let before = overflows();
            let _clients = overflow(&changed, &greedy);
            wait_until(PATIENCE, "overflows", || Ok(overflows() > before)).unwrap();
        }
        audit.join().unwrap()
    });
    assert_eq!(hurt.code, Some(3), "{:?}", hurt.found());
    for id in ["040", "045"] {
        let finding = hurt
            .finding(id)
            .unwrap_or_else(|| panic!("{id}: {:?}", hurt.found()));
        assert_eq!(
            (&finding["severity"], &finding["basis"]),
            (&"critical".into(), &"evidence".into()),
            "{finding}"
        );
        let evidence = finding["evidence"].as_array().unwrap().iter();
        let moved: u64 = evidence
            .filter(|fact| fact["source"] == "TcpExt.ListenOverflows")
            .filter_map(|fact| fact["delta"].as_u64())
            .sum();
        assert!(moved > 0 && moved <= overflows(), "{finding}");
    }
    let port = greedy.local_addr().unwrap().port();
    let message = hurt.finding("040").unwrap()["message"].to_string();
    assert!(
        message.contains(&format!(":{port}")) && message.contains("somaxconn"),
        "{message}"
    );
}

/// Scrapes until the metrics satisfy a condition, as long as a poll of the settings may take.
fn soon(agent: &Agent, what: &str, condition: impl Fn(&Metrics) -> bool) {
    let mut last = String::new();
    let waited = wait_until(SOON, what, || {
        let metrics = agent.scrape();
        let good = condition(&metrics);
        last = metrics.text;
        Ok(good)
    });
    if let Err(error) = waited {
        panic!(
            "{error}; the agent said:\n{}\nand shows:\n{last}",
            agent.stderr()
        );
    }
}

#[test]
fn a_change_shows_in_the_agent_long_before_the_next_minute() {
    require!(require::root());
    let ns = NetNs::new("auditp").unwrap();
    let agent = Agent::start(&[]);
    let netns = ns.inode();
    let timestamps: Labels<'_> = &[("netns", &netns), ("key", &"net.ipv4.tcp_timestamps")];
    let shows = |metrics: &Metrics| metrics.get("netobs_sysctl_value", timestamps);
    soon(&agent, "the settings", |metrics| {
        shows(metrics) == Some(1.0)
    });
    ns.sysctl("net.ipv4.tcp_timestamps", "0").unwrap();
    soon(&agent, "the changed setting", |metrics| {
        shows(metrics) == Some(0.0)
    });
    let finding: Labels<'_> = &[("netns", &netns), ("id", &"NETOBS-TCP-001")];
    let found = agent.scrape().get("netobs_sysctl_finding", finding);
    assert_eq!(found, Some(1.0));
    ns.sysctl("net.ipv4.tcp_timestamps", "1").unwrap();
    soon(&agent, "the finding's end", |metrics| {
        metrics.get("netobs_sysctl_finding", finding).is_none()
    });
    // A namespace that goes takes its series along.
    drop(ns);
    soon(&agent, "the namespace's end", |metrics| {
        shows(metrics).is_none()
    });
}

/// Whether the registers of a system call can be read, as the kernel's version has it.
fn has_helper() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map_while(|n| n.parse::<u32>().ok());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (5, 15)
}

#[test]
fn what_a_listener_asked_for_is_known_and_which_limit_binds() {
    require!(require::root());
    let ns = NetNs::new("auditl").unwrap();
    ns.sysctl("net.core.somaxconn", "16").unwrap();
    let older = listener(&ns, 1024);
    let agent = Agent::start(&[]);
    let exactness = if has_helper() { "exact" } else { "unavailable" };
    let signal: Labels<'_> = &[("signal", &"listen_argument"), ("exactness", &exactness)];
    assert_eq!(
        agent.scrape().get("netobs_signal_info", signal),
        Some(1.0),
        "{}",
        agent.stderr()
    );
    let (cut, chosen, all) = (listener(&ns, 1024), listener(&ns, 8), listener(&ns, -1));
    let netns = ns.inode();
    let binding = |metrics: &Metrics, listener: &TcpListener| {
        let port = listener.local_addr().unwrap().port();
        let labels: Labels<'_> = &[("netns", &netns), ("local_port", &port)];
        let mut limits: Vec<String> = metrics
            .all(BINDING, labels)
            .inspect(|sample| assert_eq!(sample.value, 1.0))
            .map(|sample| sample.labels["limit"].clone())
            .collect();
        assert!(limits.len() < 2, "{limits:?}");
        limits.pop()
    };
    let is = |listener: &TcpListener, limit: &str| {
        let what = format!("the limit to be {limit}");
        let got = wait_for(PATIENCE, &what, || {
            let got = binding(&agent.scrape(), listener);
            Ok((got.as_deref() == Some(limit)).then_some(()))
        });
        got.unwrap_or_else(|error| panic!("{error}: {}", agent.scrape().text));
    };
    is(&older, "unknown");
    if !has_helper() {
        is(&cut, "unknown");
        return;
    }
    is(&cut, "somaxconn");
    is(&chosen, "listen_argument");
    is(&all, "somaxconn");
    // A second listen() of the same socket tells by its result only.
    ns.run(|| listen(&chosen, Backlog::new(12).unwrap()).unwrap());
    is(&chosen, "unknown");

    // The agent's auditor is told: no overflow is needed to see that the queue is cut. A changed
    // setting makes it look now.
    ns.sysctl("net.ipv4.tcp_timestamps", "0").unwrap();
    let finding: Labels<'_> = &[("netns", &netns), ("id", &"NETOBS-TCP-040")];
    soon(&agent, "the listener that is cut", |metrics| {
        metrics.get("netobs_sysctl_finding", finding) == Some(1.0)
    });
}
