//! Every query of the dashboards, the recording rules and the alerts, run by a real Prometheus that
//! scrapes a real agent under real faults. Root is needed, as for the kernel tests.
//!
//! `--nocapture` shows each query with its value.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step is a failed test"
)]

mod bursts;
mod faults;
mod queries;
mod server;
#[path = "../kernel/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the kernel tests use all of it")]
mod support;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{require, wait_until};

use faults::Faults;
use queries::{Query, all};
use server::Prometheus;
use support::Agent;

/// Every scrape and every rule is at most this far away.
const PATIENCE: Duration = Duration::from_secs(25);

/// Queries that have nothing to show here, by a part of theirs, and why.
const SILENT: [(&str, &str); 9] = [
    (
        "netobs_tcp_accept_queue_enqueues_total",
        "only kernels with fentry or kprobes show who enters the queue",
    ),
    (
        "netobs_probe_tls_certificate_expiry_timestamp_seconds",
        "no target speaks TLS here; the tests of path probes have some",
    ),
    (
        "netobs_bpf_run",
        "only where kernel.bpf_stats_enabled is set, which costs on every event of the machine",
    ),
    (
        "netobs_events_lost_total[10m]",
        "nothing is lost; promtool's tests show when the alert fires",
    ),
    (
        "sum by (probe, reason) (rate(netobs_events_lost_total",
        "nothing is lost, and the panel shows losses only",
    ),
    (
        "netobs_ledger_unattributed != 0",
        "everything is attributed: 0 is the promise",
    ),
    (
        "netobs_signal_info{exactness=\"unavailable\"}",
        "every signal has a method on this kernel",
    ),
    (
        "netobs_unreadable_namespaces > 0",
        "root can read every namespace",
    ),
    (
        "netobs_probe_attached == 0",
        "kernels with fentry attach every probe",
    ),
];

fn reason(query: &Query) -> Option<&'static str> {
    let part = SILENT.iter().find(|(part, _)| query.text.contains(part));
    part.map(|(_, reason)| *reason)
}

#[test]
fn every_query_returns_data_under_real_faults() {
    require!(
        require::root(),
        require::prometheus(),
        require::tun(),
        require::command("ip"),
        require::command("nft")
    );
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("netobs.toml");
    let faults = Faults::prepare();
    // One target that answers and one that does not.
    let answering = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = answering.local_addr().unwrap();
    let probe = |name: &str, place: SocketAddr| {
        format!(
            "[[probe.target]]\nname = \"{name}\"\ntarget = \"{place}\"\n\
             interval = \"1s\"\ntimeout = \"900ms\"\n"
        )
    };
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    // And one whose name server is silent.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let unnamed = format!(
        "[[probe.target]]\nname = \"unnamed\"\ntarget = \"dns:a.example\"\ninterval = \"1s\"\n\
         timeout = \"900ms\"\nservers = [\"{}\"]\n",
        silent.local_addr().unwrap()
    );
    let targets = probe("up", target) + &probe("down", nobody) + &unnamed;
    fs::write(&config, &targets).unwrap();
    // What is off by default, and has its panels.
    let probes = ["--probe", "dns", "--probe", "sys_exit_accept"];
    let agent = Agent::start(&[&["--config", config.to_str().unwrap()][..], &probes].concat());
    let prometheus = Prometheus::start(folder.path(), agent.address());
    let reload = |text: &str, done: &str| {
        fs::write(&config, format!("{text}{targets}")).unwrap();
        let pid = Pid::from_raw(agent.pid().cast_signed());
        kill(pid, Signal::SIGHUP).unwrap();
        wait_until(PATIENCE, done, || Ok(agent.stderr().contains(done))).unwrap();
    };
    // A series that is there before its fault begins shows the fault as a rise; those of
    // retransmissions are born with their first.
    prometheus.wait_for("netobs_tcp_listen_drops_total");
    let peer = testbed::RawPeer::new(&faults.raw, testbed::Family::V4).unwrap();
    let _half_open = faults.half_open(&peer);
    faults.commit();
    prometheus.wait_for("netobs_tcp_retransmit_failures_total > 0");
    prometheus.wait_for("netobs_dns_lookup_duration_seconds_count");
    faults.commit();
    reload("[limits]\nmax_label_sets = 1\n", "limits.max_label_sets");
    let _folded = faults.more_listeners();
    reload("[limits]\nmax_label_sets = 0\n", "the old one stays");

    prometheus
        .wait_for("increase(netobs_tcp_retransmitted_segments_total{role=\"client\"}[1m]) > 0");
    prometheus.wait_for("increase(netobs_tcp_retransmit_failures_total[1m]) > 0");

    let (last, mut open): (Vec<Query>, Vec<Query>) = all()
        .into_iter()
        .partition(|query| query.place == "alert NetobsAgentGone");
    let total = open.len() + last.len();
    assert!(total > 60, "{total} queries");
    answered(&prometheus, &mut open);
    for (name, state) in [
        ("NetobsListenDrops", "firing"),
        ("NetobsProbeFailing", "pending"),
        ("NetobsSysctlCritical", "pending"),
        ("NetobsAcceptQueueNearLimit", "pending"),
        ("NetobsConfigReloadFailed", "pending"),
        ("NetobsSeriesFolded", "firing"),
    ] {
        prometheus.wait_for(&format!(
            "ALERTS{{alertname=\"{name}\",alertstate=\"{state}\"}}"
        ));
    }
    // With honor_labels, as the PodMonitor has it, a series that names no pod does not get the
    // agent's; one that cannot name one does.
    prometheus.wait_for("netobs_tcp_listen_drops_total{pod=\"\"} > 0");
    prometheus.wait_for("netobs_build_info{pod=\"agent\"}");
    for query in [
        "{exported_pod!=\"\"}",
        "netobs_tcp_listen_drops_total{pod=\"agent\"}",
    ] {
        assert_eq!(prometheus.ask(query), None, "{query}");
    }
    // One wants an agent that has gone.
    agent.stop();
    let mut last = last;
    answered(&prometheus, &mut last);
    for query in &open {
        let why = reason(query).unwrap_or_default();
        println!("{}: nothing ({why})\n    {}", query.place, query.text);
    }
    println!("{} of {total} queries returned data", total - open.len());
}

/// Asks until each has been answered but those of [`SILENT`], which stay when they have nothing to
/// show.
fn answered(prometheus: &Prometheus, open: &mut Vec<Query>) {
    let all = wait_until(PATIENCE, "every query to return data", || {
        open.retain(|query| match prometheus.ask(&query.text) {
            Some(answer) => {
                println!("{}: {answer}\n    {}", query.place, query.text);
                false
            }
            None => true,
        });
        Ok(open.iter().all(|query| reason(query).is_some()))
    });
    let left = open.iter().filter(|query| reason(query).is_none());
    let left: Vec<String> = left
        .map(|query| format!("{}: {}", query.place, query.text))
        .collect();
    assert!(all.is_ok(), "no data for\n{}", left.join("\n"));
}
