//! `netobs diagnose`: faults that are caused for real are found, with whom they concern and how many
//! there were; a busy system that is well gets no finding.
//!
//! `--nocapture` shows what a user sees of each.

mod faults;
mod limits;
mod lookups;
mod past;
mod programs;
mod settings;

#[path = "../../../src/audit/tests/schema.rs"]
mod schema_check;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStderr, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use testbed::{Counters, Listener, NetNs, Ns, require, scenario};

use self::schema_check::violations;
use crate::support::agent::binary;

/// `netobs diagnose` at work.
struct Diagnosing {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Diagnosing {
    /// Returns once it watches.
    fn start(ns: &Ns) -> Self {
        let netns = ns.inode().to_string();
        let mut child = binary(&[
            "diagnose",
            "--json",
            "--netns",
            &netns,
            "--duration",
            "2m",
            "--log-level",
            "info",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("watching") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended");
        }
        Self { child, said }
    }

    /// Ends it: its exit code and what it said.
    fn ends(mut self) -> (i32, Value) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        let mut output = self.child.wait_with_output().unwrap();
        self.said.read_to_end(&mut output.stderr).unwrap();
        result(&output)
    }
}

/// The exit code and what was said, which is shown, and must be as the schema promises.
fn result(output: &Output) -> (i32, Value) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{errors}"));
    let schema = include_str!("../../../../docs/diagnosis.schema.json");
    let schema = serde_json::from_str(schema).unwrap();
    assert_eq!(violations(&schema, &value), Vec::<String>::new());
    show(&value);
    (output.status.code().unwrap(), value)
}

/// As the text form has it.
fn show(diagnosis: &Value) {
    let lines = |value: &Value| -> Vec<String> {
        let all = value.as_array().unwrap().iter();
        all.map(|line| line.as_str().unwrap().to_owned()).collect()
    };
    for finding in diagnosis["findings"].as_array().unwrap() {
        let text = |name: &str| finding[name].as_str().unwrap();
        println!("{} {} [{}]", text("severity"), text("summary"), text("id"));
        println!(
            "   who       {}, netns {}",
            text("process"),
            finding["netns"]
        );
        let parts = [
            ("evidence", "evidence"),
            ("cause", "cause"),
            ("do", "remedy"),
            ("stories", "stories"),
        ];
        for (head, name) in parts {
            for line in lines(&finding[name]) {
                println!("   {head:<9} {line}");
            }
        }
    }
    println!(
        "exits with {} findings",
        diagnosis["findings"].as_array().unwrap().len()
    );
}

fn assert_says(finding: &Value, part: &str) {
    let text = finding.to_string();
    assert!(text.contains(part), "{part:?} is not in {finding:#}");
}

/// The namespace's own findings: settings of the machine may be what they like.
fn own(diagnosis: &Value) -> Vec<&Value> {
    let all = diagnosis["findings"].as_array().unwrap().iter();
    all.filter(|finding| !finding["netns"].is_null()).collect()
}

/// The name of this process as the kernel has it.
fn comm() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    name.trim_end().to_owned()
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
    let diagnosing = Diagnosing::start(&ns);
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
    let diagnosing = Diagnosing::start(&ns);
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
    let diagnosing = Diagnosing::start(&ns);
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
    is_well(code, &diagnosis);
}

fn is_well(code: i32, diagnosis: &Value) {
    assert!(own(diagnosis).is_empty(), "{diagnosis:#}");
    let all = diagnosis["findings"].as_array().unwrap();
    assert_eq!(code, if all.is_empty() { 0 } else { 3 });
    assert!(diagnosis["healthy"].as_array().unwrap().len() >= 6);
}
