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

use crate::support::{Net, answer, serve_tcp};

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
        let (file, log) = (folder.join("netobs.toml"), folder.join("log"));
        fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_netobs"));
        command
            .args(["run", "--web.listen-address", "127.0.0.1:0", "--config"])
            .arg(&file)
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
    let one = |name: &str, target: &str| {
        format!(
            "[[probe.target]]\nname = '{name}'\ntarget = '{target}'\ninterval = '1s'\n\
             timeout = '1500ms'\njitter = '0'\n"
        )
    };
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
