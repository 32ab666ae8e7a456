//! The image under containerd, with what the DaemonSet gives it and nothing else.
//!
//! `cargo xtask test --containers` builds the image and runs this as root. The command line of the
//! container is made from `deploy/kubernetes/base/daemonset.yaml`, so what is tested is what is
//! deployed: capabilities, seccomp profile, namespaces, mounts, read-only root.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod cri;
mod http;
mod images;
mod manifest;
mod pods;
mod runtime;

use std::{
    env, fs,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use manifest::DaemonSet;
use runtime::{Containerd, More};
use testbed::{Listener, NetNs, Ns, require, scenario, wait_until};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// More than a listener drops by accident.
const OVERFLOWS: u64 = 23;

/// Names the file that `cargo xtask image` made.
pub(crate) const IMAGE: &str = "NETOBS_IMAGE";

#[test]
fn attaches_serves_and_attributes_with_the_daemonsets_rights() {
    require!(
        require::root(),
        require::command("containerd"),
        require::command("ctr"),
        require::command("runc"),
        require::variable(IMAGE),
    );
    let daemonset = DaemonSet::read();
    let as_root = methods_of_root(daemonset.port());
    let containerd = Containerd::start();
    let image = env::var_os(IMAGE).unwrap();
    let name = containerd.import(Path::new(&image));
    // The network namespaces of the agent's pod and of another one, which has a process in it.
    let (own, other) = (NetNs::new("agent").unwrap(), NetNs::new("victim").unwrap());
    let _pause = Process::pause(&other);

    let container = containerd.run(&name, &own, &daemonset, &More::default());
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.strip_prefix(':'))
            .map(|value| value.trim().to_owned())
            .unwrap()
    };
    println!(
        "process {}: CapBnd {}, CapEff {}, Seccomp {}, NoNewPrivs {}",
        container.pid(),
        field("CapBnd"),
        field("CapEff"),
        field("Seccomp"),
        field("NoNewPrivs"),
    );
    let granted = format!("{:016x}", daemonset.capability_mask());
    assert_eq!(field("CapBnd"), granted);
    // What is effective may be less: the agent gives rights back.
    let effective = u64::from_str_radix(&field("CapEff"), 16).unwrap();
    assert_eq!(effective & !daemonset.capability_mask(), 0);
    assert_eq!(field("Seccomp"), "2", "a filter is in force");
    assert_eq!(field("NoNewPrivs"), "1");

    let get = |path: &str| http::get(&own, daemonset.port(), path);
    wait_until(PATIENCE, "the agent is ready", || {
        if !container.is_running() {
            anyhow::bail!("the agent ended; it said:\n{}", container.output());
        }
        Ok(get("/-/ready").is_ok_and(|answer| answer.status == 200))
    })
    .unwrap();
    assert_eq!(get("/-/healthy").unwrap().status, 200);

    let metrics = get("/metrics").unwrap();
    assert_eq!(metrics.status, 200);
    let attached = rows(
        &metrics.body,
        &["netobs_probe_attached{", "netobs_signal_info{"],
    );
    println!("{}", attached.join("\n"));
    assert_eq!(
        attached, as_root,
        "as root on the host, and in the container"
    );

    // An overflow in the other pod.
    let listener = Listener::builder("127.0.0.1:0".parse().unwrap())
        .backlog(4)
        .open(&other)
        .unwrap();
    wait_until(PATIENCE, "the listener is known", || {
        let body = get("/metrics")?.body;
        Ok(value(&body, "netobs_tcp_accept_queue_limit", &listener).is_some())
    })
    .unwrap();
    let _queued = listener.fill().unwrap();
    scenario::overflow_syns(&listener, OVERFLOWS).unwrap();
    // Every kernel tells the drops exactly; how many of them were overflows, not every one does.
    let attributed = "netobs_tcp_listen_drops_total";
    let outcome = wait_until(PATIENCE, "every overflow is attributed", || {
        let body = get("/metrics")?.body;
        Ok(value(&body, attributed, &listener) == Some(OVERFLOWS))
    });
    // Its counters are read through the process, which takes the right to look at it.
    let netns = format!("netns=\"{}\"", listener.ns().inode());
    let held = wait_until(PATIENCE, "the ledger of the namespace is held", || {
        let body = get("/metrics")?.body;
        let mut ledger = body
            .lines()
            .filter(|line| line.starts_with("netobs_ledger_") && line.contains(&netns));
        Ok(ledger.any(|line| line.contains("ListenDrops") && line.ends_with(" 0")))
    });
    let body = get("/metrics").unwrap().body;
    for line in body.lines().filter(|line| line.contains(&netns)) {
        if line.starts_with("netobs_tcp_listen_") || line.starts_with("netobs_ledger_") {
            println!("{line}");
        }
        if line.starts_with(attributed) {
            assert!(!line.contains("process=\"\""), "the owner is known: {line}");
        }
    }
    if let Err(error) = outcome.and(held) {
        panic!("{error:#}; the agent said:\n{}", container.output());
    }

    let said = container.stop();
    assert_eq!(said.status, 0, "{}", said.output);
}

/// What attaches on this machine when nothing is held back: not every kernel allows every probe.
fn methods_of_root(port: u16) -> Vec<String> {
    let ns = NetNs::new("root").unwrap();
    let agent = ns.run(|| {
        Command::new(env!("CARGO_BIN_EXE_netobs"))
            .args(["run", "--log-level=error"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .spawn()
    });
    let _agent = Process(agent.unwrap());
    wait_until(PATIENCE, "the agent on the host is ready", || {
        Ok(http::get(&ns, port, "/-/ready").is_ok_and(|answer| answer.status == 200))
    })
    .unwrap();
    let metrics = http::get(&ns, port, "/metrics").unwrap();
    let rows = rows(
        &metrics.body,
        &["netobs_probe_attached{", "netobs_signal_info{"],
    );
    assert!(rows.iter().any(|row| row.ends_with(" 1")), "{rows:?}");
    rows
}

/// The lines that begin with one of these.
fn rows(body: &str, beginnings: &[&str]) -> Vec<String> {
    body.lines()
        .filter(|line| {
            beginnings
                .iter()
                .any(|beginning| line.starts_with(beginning))
        })
        .map(str::to_owned)
        .collect()
}

/// A process of the test; killed when dropped.
struct Process(Child);

impl Process {
    /// One that keeps a pod's namespaces and does nothing.
    fn pause(ns: &Ns) -> Self {
        Self(ns.run(|| Command::new("sleep").arg("600").spawn()).unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The sum of the listener's series in a family; `None` when there is none.
fn value(body: &str, family: &str, listener: &Listener) -> Option<u64> {
    let netns = format!("netns=\"{}\"", listener.ns().inode());
    let port = format!("local_port=\"{}\"", listener.port());
    let values = body
        .lines()
        .filter(|line| line.starts_with(family) && line.contains(&netns) && line.contains(&port))
        .map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.fold(None, |sum, value| Some(sum.unwrap_or(0) + value?))
}
