//! `netobs audit` as a user runs it: what it prints, and its exit codes.

use std::process::{Command, Output};

fn netobs(args: &[&str]) -> Output {
    let run = Command::new(env!("CARGO_BIN_EXE_netobs"))
        .args(args)
        .output();
    run.unwrap_or_else(|error| panic!("run netobs {args:?}: {error}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn rules_are_listed_and_explained() {
    let list = netobs(&["audit", "list"]);
    assert_eq!(list.status.code(), Some(0));
    assert!(stdout(&list).lines().count() > 50);
    let explained = netobs(&["audit", "explain", "netobs-tcp-001"]);
    assert_eq!(explained.status.code(), Some(0));
    assert!(stdout(&explained).starts_with("NETOBS-TCP-001: "));
    let keys = netobs(&["audit", "list", "--keys"]);
    assert!(stdout(&keys).starts_with("net.ipv4.tcp_timestamps "));
    let object = |args: &[&str]| -> serde_json::Value {
        let output = netobs(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    assert_eq!(object(&["audit", "explain", "1"])["id"], "NETOBS-TCP-001");
    let rules = object(&["audit", "list"]);
    assert_eq!(
        rules.as_array().map(Vec::len),
        Some(stdout(&list).lines().count())
    );
    let settings = object(&["audit", "list", "--keys"]);
    assert_eq!(settings[0]["defaults"][0]["value"], "1");
}

#[test]
fn a_wrong_command_line_is_2_and_what_is_not_there_is_1() {
    for args in [
        &["audit", "explain", "NETOBS-TCP-999"][..],
        &["audit", "--key", "tcp_nothing"],
        &["audit", "--netns", "blue"],
        &["audit", "--window", "soon"],
        &["audit", "--fail-on", "fatal"],
        &["audit", "--json", "--format", "text"],
    ] {
        let output = netobs(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{args:?}"
        );
    }
    // What is there and is no namespace is not a namespace without findings, nor is a root that is
    // not there one without contradictions.
    for args in [
        ["--netns", "/etc/passwd"],
        ["--netns", "/proc/self/ns/mnt"],
        ["--netns", "/proc"],
        ["--root", "/nothing-of-this-name"],
        ["--root", "/etc/passwd"],
    ] {
        let output = netobs(&[&["audit"][..], &args].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout.is_empty() && said.contains(args[1]), "{said}");
    }
    let gone = netobs(&["audit", "--netns", "/run/netns/nothing-of-this-name"]);
    assert_eq!(gone.status.code(), Some(1));
}

#[test]
fn the_report_is_one_json_object_and_decides_the_exit_code() {
    let output = netobs(&["audit", "--netns", "host", "--json", "--fail-on", "info"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["schema_version"], 1);
    let totals = &report["totals"];
    let found = ["critical", "warning", "info"]
        .iter()
        .any(|s| totals[s] != 0);
    let want = match (found, report["partial"].as_bool()) {
        (true, _) => 3,
        (false, Some(true)) => 1,
        (false, _) => 0,
    };
    assert_eq!(output.status.code(), Some(want), "{totals}");
    // No progress and no colours when nobody watches.
    let text = netobs(&["audit", "--netns", "host", "--window", "100ms"]);
    assert!(text.stderr.is_empty() && !stdout(&text).contains('\u{1b}'));
}
