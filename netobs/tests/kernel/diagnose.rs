//! `netobs diagnose`: faults that are caused for real are found, a quiet namespace is called well.

use std::{
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use testbed::{Counters, Listener, NetNs, Ns, require, scenario, wait_until};

use crate::support::{PATIENCE, agent::binary};

/// `netobs diagnose` at work.
struct Diagnosing(Child);

impl Diagnosing {
    /// Returns once it watches: it has told so by a progress that only a terminal gets, so by what
    /// it has loaded.
    fn start(ns: &Ns, seconds: u64) -> Self {
        let netns = ns.inode().to_string();
        let duration = format!("{seconds}s");
        let arguments = [
            "diagnose",
            "--json",
            "--netns",
            &netns,
            "--duration",
            &duration,
        ];
        let child = binary(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let links = format!("/proc/{}/fd", child.id());
        wait_until(PATIENCE, "an iterator over sockets", || {
            let all = std::fs::read_dir(&links)?.flatten();
            let iterators = all.filter(|fd| {
                std::fs::read_link(fd.path())
                    .is_ok_and(|target| target.to_string_lossy().contains("bpf_link"))
            });
            Ok(iterators.count() > 4)
        })
        .unwrap();
        // Attached; what exists is being looked for.
        thread::sleep(Duration::from_secs(1));
        Self(child)
    }

    /// Its exit code and what it said.
    fn ends(self) -> (i32, Value) {
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        let value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{errors}"));
        (output.status.code().unwrap(), value)
    }
}

fn finding<'a>(diagnosis: &'a Value, id: &str) -> &'a Value {
    let all = diagnosis["findings"].as_array().unwrap();
    let found = all.iter().find(|finding| finding["id"] == id);
    found.unwrap_or_else(|| panic!("no {id} in {diagnosis:#}"))
}

#[test]
fn an_overflow_is_found_with_its_listener_and_a_remedy() {
    require!(require::root());
    let ns = NetNs::new("ill").unwrap();
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(4);
    let listener = builder.open(&ns).unwrap();
    let diagnosing = Diagnosing::start(&ns, 4);
    listener.fill().unwrap();
    scenario::overflow_syns(&listener, 30).unwrap();
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "accept-queue-overflow");
    assert_eq!(found["severity"], "critical");
    assert_eq!(found["events"], 30);
    let dropped = Counters::read_in(&ns).unwrap().get("TcpExt", "ListenDrops");
    assert_eq!(dropped, 30);
    let text = found.to_string();
    assert!(
        text.contains(&format!("port {}", listener.port())),
        "{text}"
    );
    // Nobody accepts: that is the cause, not the limit.
    assert!(text.contains("does not accept at all"), "{text}");
}

#[test]
fn refused_connects_are_found_with_who_connects() {
    require!(require::root());
    let ns = NetNs::new("refused").unwrap();
    let diagnosing = Diagnosing::start(&ns, 3);
    ns.run(|| {
        for _ in 0..7 {
            std::net::TcpStream::connect("127.0.0.1:9").unwrap_err();
        }
    });
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "connect-refused");
    assert_eq!(found["events"], 7);
    assert_eq!(found["netns"], ns.inode());
}

#[test]
fn a_busy_and_healthy_namespace_has_no_findings() {
    require!(require::root());
    let ns = NetNs::new("well").unwrap();
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(128);
    let listener = builder.open(&ns).unwrap();
    let diagnosing = Diagnosing::start(&ns, 3);
    let address = listener.address();
    for _ in 0..20 {
        let clients: Vec<_> = ns.run(|| {
            let connect = || std::net::TcpStream::connect(address).unwrap();
            (0..20).map(|_| connect()).collect()
        });
        listener.accept_all().unwrap();
        drop(clients);
    }
    let (code, diagnosis) = diagnosing.ends();
    let own = diagnosis["findings"].as_array().unwrap();
    assert!(
        own.iter().all(|finding| finding["netns"].is_null()),
        "{diagnosis:#}"
    );
    assert!(code == 0 || !own.is_empty(), "{code}");
    assert!(diagnosis["healthy"].as_array().unwrap().len() >= 6);
}
