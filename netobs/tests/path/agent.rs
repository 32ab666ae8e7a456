//! Targets in the agent: metrics, `/health/network`, the kernel's events, reload.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use testbed::{Hook, NetNs, Rule, require, rule::Select, wait_until, witness::wait_for};

use crate::support::{Net, answer, serve_tcp, serve_udp};

const PATIENCE: Duration = Duration::from_secs(60);
const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// The agent in a namespace; its log in a file.
struct Agent<'a> {
    ns: &'a NetNs,
    child: Child,
    log: std::path::PathBuf,
    address: SocketAddr,
}

impl<'a> Agent<'a> {
    fn start(ns: &'a NetNs, folder: &Path, config: &str) -> Self {
        Self::start_with(ns, folder, config, &[])
    }

    fn start_with(ns: &'a NetNs, folder: &Path, config: &str, more: &[&str]) -> Self {
        let (file, log) = (folder.join("netobs.toml"), folder.join("log"));
        fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_netobs"));
        command
            .args(["run", "--web.listen-address", "127.0.0.1:0", "--config"])
            .arg(&file)
            .args(more)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap());
        let child = ns.run(|| command.spawn()).unwrap();
        let said = || fs::read_to_string(&log).unwrap();
        let address = wait_for(PATIENCE, "the agent to serve", || {
            let text = said();
            let at = text
                .split_once("http://")
                .and_then(|(_, rest)| rest.split_once("/metrics"));
            Ok(at.and_then(|(address, _)| address.parse().ok()))
        });
        let address = address.unwrap_or_else(|error| panic!("{error}: {}", said()));
        Self {
            ns,
            child,
            log,
            address,
        }
    }

    fn get(&self, path: &str) -> (u16, String) {
        let text = self.ns.run(|| {
            let mut stream = TcpStream::connect(self.address).unwrap();
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )
            .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    fn health(&self) -> (u16, Value) {
        let (status, body) = self.get("/health/network");
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The health once `condition` holds.
    fn health_when(&self, what: &str, condition: impl Fn(&Value) -> bool) -> (u16, Value) {
        let mut last = Value::Null;
        let found = wait_for(PATIENCE, what, || {
            let (status, health) = self.health();
            last = health.clone();
            Ok(condition(&health).then_some((status, health)))
        });
        found.unwrap_or_else(|error| panic!("{error}\n{last:#}\n{}", self.log()))
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn value(&self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    fn reload(&self, config: &str) {
        let folder = self.log.parent().unwrap();
        fs::write(folder.join("netobs.toml"), config).unwrap();
        self.signal(Signal::SIGHUP);
    }

    /// Descriptors that it holds.
    fn descriptors(&self) -> usize {
        let all = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        all.unwrap().count()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn target<'a>(health: &'a Value, name: &str) -> Option<&'a Value> {
    let mut targets = health["targets"].as_array()?.iter();
    targets.find(|target| target["target"] == name)
}

fn measured(health: &Value, name: &str, times: u64) -> bool {
    let target = target(health, name);
    target.is_some_and(|target| target["measurements"].as_u64() >= Some(times))
}

#[test]
fn targets_are_measured_joined_with_the_kernels_events_and_reloaded() {
    require!(require::root(), require::command("nft"));
    let net = Net::new("agent");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |stream, _| answer(stream, FINE));
    let _rule = Rule::drop_all(&net.server, Hook::Input, Select::To(81)).unwrap();
    let one = |name: &str, target: &str| one(name, target, "timeout = '1500ms'");
    let fine = one("fine", &format!("http://{server}/"));
    let lost = one("lost", &net.at(81).to_string());
    let refused = one("refused", &net.at(82).to_string());
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(
        &net.client,
        folder.path(),
        &format!("{fine}{lost}{refused}"),
    );

    let (status, health) = agent.health_when("three targets to be measured", |health| {
        ["fine", "lost", "refused"]
            .into_iter()
            .all(|name| measured(health, name, 2))
    });
    println!("{health:#}");
    assert!(
        !agent.log().contains("rights that they do not need"),
        "{}",
        agent.log()
    );
    assert_eq!((status, &health["status"]), (503, &"degraded".into()));
    let fine_now = target(&health, "fine").unwrap();
    assert_eq!(fine_now["status"], "healthy", "{}", agent.log());
    let lost_now = target(&health, "lost").unwrap();
    assert_eq!(lost_now["failure"]["error_type"], "timed_out");
    let story = lost_now["story"].to_string();
    assert!(
        story.contains("SYN sent 2 times, no answer to any"),
        "{story}"
    );
    // What the kernel's own event says of the same socket: the SYN went again after a second.
    let fact = &lost_now["kernel"][0];
    assert_eq!(fact["event"], "retransmit", "{health:#}");
    let at = fact["at_seconds"].as_f64().unwrap();
    assert!((0.99..1.4).contains(&at), "{fact}");
    assert!(story.contains("kernel: the SYN was sent again"), "{story}");

    assert_eq!(
        agent.value("netobs_probe_success{target=\"fine\"}"),
        Some(1.0)
    );
    assert_eq!(
        agent.value("netobs_probe_success{target=\"lost\"}"),
        Some(0.0)
    );
    let failures =
        "netobs_probe_failures_total{target=\"refused\",phase=\"connect\",error_type=\"refused\"}";
    let before = agent.value(failures).unwrap();
    assert!(before >= 2.0);
    let times = "netobs_probe_duration_seconds_count{target=\"fine\",phase=\"first_byte\"}";
    assert!(agent.value(times).unwrap() >= 2.0);
    assert!(
        agent.log().contains("a path probe fails"),
        "{}",
        agent.log()
    );

    // One goes, one comes, one stays with its counts.
    let new = one("new", &format!("{server}"));
    agent.reload(&format!("{fine}{refused}{new}"));
    let (_, health) = agent.health_when("the new target to be measured", |health| {
        measured(health, "new", 1)
    });
    assert!(target(&health, "lost").is_none(), "{health:#}");
    assert!(agent.value(failures).unwrap() >= before);
    // Its last numbers are still there to be scraped.
    assert_eq!(
        agent.value("netobs_probe_success{target=\"lost\"}"),
        Some(0.0)
    );
    // A target that keeps failing is asked less often.
    let (_, health) = agent.health_when("the circuit to open", |health| {
        target(health, "refused").is_some_and(|target| target["backing_off"] == true)
    });
    println!("{health:#}");
    // Without targets that fail, the network is healthy again.
    agent.reload(&fine);
    let (status, _) = agent.health_when("health", |health| health["status"] == "healthy");
    assert_eq!(status, 200);
}

fn one(name: &str, target: &str, more: &str) -> String {
    format!(
        "[[probe.target]]\nname = '{name}'\ntarget = '{target}'\ninterval = '1s'\njitter = '0'\n{more}\n"
    )
}

/// As many targets as there may be, of which one lives: the dead do not keep it waiting, and when
/// they go, nothing of them stays.
#[test]
fn five_hundred_targets_of_which_one_lives() {
    require!(require::root(), require::command("nft"));
    let net = Net::new("fivehundred");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |stream, _| answer(stream, FINE));
    let _rule = Rule::drop_all(&net.server, Hook::Input, Select::To(81)).unwrap();
    let dead = net.at(81).to_string();
    let alive = one("alive", &format!("http://{server}/"), "");
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(&net.client, folder.path(), &alive);
    agent.health_when("the first measurement", |health| {
        measured(health, "alive", 1)
    });
    let before = agent.descriptors();

    let mut all = alive.clone();
    for number in 0..499 {
        all += &one(&format!("dead {number}"), &dead, "timeout = '1s'");
    }
    agent.reload(&all);
    let (status, health) = agent.health_when("all to be measured", |health| {
        let all = health["targets"].as_array().unwrap();
        all.len() == 500 && all.iter().filter(|it| it["status"] != "unknown").count() > 100
    });
    assert_eq!((status, &health["status"]), (503, &"degraded".into()));
    // 500 targets, and no more than 32 sockets.
    assert!(
        agent.descriptors() <= before + 40,
        "{}",
        agent.descriptors()
    );
    let now = target(&health, "alive").unwrap()["measurements"]
        .as_u64()
        .unwrap();
    let begun = std::time::Instant::now();
    let (_, health) = agent.health_when("the living one to be measured", |health| {
        measured(health, "alive", now + 5)
    });
    // At its interval of a second, give and take what a busy machine adds.
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(target(&health, "alive").unwrap()["status"], "healthy");
    for it in health["targets"].as_array().unwrap() {
        if it["status"] == "degraded" {
            assert_eq!(it["failure"]["phase"], "connect", "{it:#}");
            assert_eq!(it["failure"]["error_type"], "timed_out", "{it:#}");
        }
    }

    agent.reload(&alive);
    agent.health_when("one target", |health| {
        health["targets"].as_array().unwrap().len() == 1
    });
    wait_until(PATIENCE, "the sockets of the dead to be gone", || {
        Ok(agent.descriptors() <= before + 2)
    })
    .unwrap();
    let end = std::time::Instant::now();
    drop(agent);
    assert!(
        end.elapsed() < Duration::from_secs(5),
        "{:?}",
        end.elapsed()
    );
}

/// Where the other end is on this host as well, the story says what it did.
#[test]
fn a_full_accept_queue_is_told_by_who_was_turned_away() {
    require!(require::root());
    let net = Net::new("turned");
    let listener = testbed::Listener::builder(net.at(83)).backlog(1);
    let listener = listener.open(&net.server).unwrap();
    let _queued = listener.fill_from(&net.client, listener.address()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let target_line = one("full", &net.at(83).to_string(), "timeout = '2500ms'");
    let agent = Agent::start(&net.client, folder.path(), &target_line);
    let (_, health) = agent.health_when("the story of both ends", |health| {
        target(health, "full").is_some_and(|it| it["story"].to_string().contains("both ends"))
    });
    let full = target(&health, "full").unwrap();
    assert_eq!(full["failure"]["error_type"], "timed_out");
    let story = full["story"].to_string();
    // How often depends on the kernel: from 6.5 on the first are a second apart.
    assert!(story.contains("times, no answer to any"), "{story}");
    let queue = format!("the accept queue of {} full", listener.address());
    assert!(story.contains(&queue), "{story}");
    let facts = full["kernel"].as_array().unwrap();
    assert_eq!(facts.last().unwrap()["event"], "story");
    assert!(agent.log().contains(&queue), "{}", agent.log());
    println!("{full:#}");
}

/// With the probe of name lookups, what the kernel saw of the questions is joined as well.
#[test]
fn a_dead_name_server_is_seen_by_the_kernel_too() {
    require!(require::root(), require::command("dnsmasq"));
    let net = Net::new("deadname");
    let _silent = serve_udp(&net.server, net.at(53), |_| Vec::new());
    let alive = SocketAddr::new(net.v6(), 53);
    let _server = crate::dns::dnsmasq(&net, alive, &["--address=/a.example/10.1.2.3"]);
    let more = format!("servers = ['{}', '{alive}']", net.v4());
    let config = one("name", "dns:a.example", &more);
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--probe", "dns"];
    let agent = Agent::start_with(&net.client, folder.path(), &config, &arguments);
    let (_, health) = agent.health_when("a measurement", |health| measured(health, "name", 1));
    let name = target(&health, "name").unwrap();
    // It has its answer, too late to be well.
    assert_eq!(
        (&name["status"], &name["failure"]),
        (&"degraded".into(), &Value::Null)
    );
    let story = name["story"].to_string();
    assert!(story.contains("no answer from the first server"), "{story}");
    assert!(
        story.contains("kernel: the name server did not answer in 5."),
        "{story}"
    );
    println!("{name:#}");
}

#[test]
fn a_diagnosis_measures_the_paths_that_it_is_given() {
    require!(require::root(), require::command("nft"));
    let net = Net::new("diagnosed");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |stream, _| answer(stream, FINE));
    let _rule = Rule::drop_all(&net.server, Hook::Input, Select::To(81)).unwrap();
    let dead = net.at(81).to_string();
    let fine = format!("http://{server}/");
    let mut command = Command::new(env!("CARGO_BIN_EXE_netobs"));
    // Shorter than the dead target takes: its first measurement is waited for.
    command.args(["diagnose", "--json", "--duration", "3s"]);
    command.args(["--target", &fine, "--target", &dead]);
    command.args(["--netns", &net.client.inode().to_string()]);
    let output = net.client.run(|| command.output()).unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let diagnosis: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = diagnosis["findings"].as_array().unwrap();
    let paths: Vec<&Value> = findings
        .iter()
        .filter(|it| it["id"] == "path-failing")
        .collect();
    let [path] = paths.as_slice() else {
        panic!("{diagnosis:#}");
    };
    assert!(
        path["summary"].as_str().unwrap().starts_with(&dead),
        "{path:#}"
    );
    assert_eq!(path["severity"], "critical");
    let cause = path["cause"].to_string();
    assert!(cause.contains("times, no answer to any"), "{path:#}");
    assert!(cause.contains("kernel: the SYN was sent again"), "{path:#}");
    println!("{path:#}");
}

#[test]
fn an_agent_without_targets_opens_no_sockets_for_any() {
    require!(require::root());
    let net = Net::new("notargets");
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(&net.client, folder.path(), "");
    let (status, health) = agent.health();
    assert_eq!((status, &health["status"]), (200, &"healthy".into()));
    agent.reload("[[probe.target]]\ntarget = '127.0.0.1:1'\n");
    wait_until(PATIENCE, "the agent to say that it cannot", || {
        Ok(agent.log().contains("restart the agent"))
    })
    .unwrap();
    let threads = fs::read_dir(format!("/proc/{}/task", agent.child.id())).unwrap();
    let names = threads.map(|it| fs::read_to_string(it.unwrap().path().join("comm")).unwrap());
    assert!(!names.into_iter().any(|name| name.trim() == "path-probes"));
}
