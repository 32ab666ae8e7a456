//! Kernels that lack a member or a counter: simulated by type information in which its name
//! is another; or a tracepoint: by a list of probes without it. What needs it is not attached and says
//! why, what does not watches on, and no signal claims to be exact.

use std::{io::Write as _, process::Stdio};

use serde_json::Value;
use testbed::require;

use crate::support::agent::binary;

/// This kernel's type information, in which every name `missing` is another.
fn without(missing: &str) -> tempfile::NamedTempFile {
    let mut types = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let name = [b"\0", missing.as_bytes(), b"\0"].concat();
    let places: Vec<usize> = types
        .windows(name.len())
        .enumerate()
        .filter(|(_, window)| *window == name)
        .map(|(place, _)| place)
        .collect();
    assert!(!places.is_empty(), "this kernel's types have no {missing}");
    for place in places {
        types[place + 1] = b'?';
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&types).unwrap();
    file
}

/// What `netobs check` says with that type information.
fn survey(missing: &str) -> Value {
    let types = without(missing);
    check(&["--btf", types.path().to_str().unwrap()])
}

fn check(how: &[&str]) -> Value {
    let mut arguments = vec!["check", "--json"];
    arguments.extend(how);
    let output = binary(&arguments).stdout(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let survey: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(survey["error"], Value::Null, "{survey:#}");
    survey
}

fn find<'a>(survey: &'a Value, list: &str, key: &str, name: &str) -> &'a Value {
    let mut rows = survey[list].as_array().unwrap().iter();
    rows.find(|row| row[key] == name)
        .unwrap_or_else(|| panic!("no {name} in {survey:#}"))
}

#[test]
fn what_is_missing_is_named_and_nothing_is_claimed_without_it() {
    require!(require::root());
    // A member of a kernel structure, a probe that reads it, and the signals that are less than exact
    // without it.
    let cases: [(&str, &str, &[&str]); 3] = [
        (
            "sk_drops",
            "tcp_destroy_sock",
            &[
                "listen_drops",
                "listen_overflows",
                "accept_queue",
                "connects",
            ],
        ),
        ("total_retrans", "tcp_retransmit_skb", &["retransmits"]),
        ("icsk_pending", "tcp_retransmit_skb", &["retransmits"]),
    ];
    for (missing, probe, signals) in cases {
        let survey = survey(missing);
        let status = find(&survey, "probes", "probe", probe);
        let reasons = status["reasons"].to_string();
        assert!(reasons.contains(missing), "{missing}: {status:#}");
        less_than_exact(&survey, missing, signals);
        // What has no need of it watches on.
        let resets = find(&survey, "probes", "probe", "tcp_receive_reset");
        assert_eq!(resets["attached"], true, "{missing}: {resets:#}");
    }
}

#[test]
fn a_tracepoint_that_is_missing_takes_its_signals_along() {
    require!(require::root());
    let cases: [(&str, &[&str]); 4] = [
        ("tcp_retransmit_skb", &["retransmits"]),
        ("tcp_retransmit_synack", &["syn_ack_retransmits"]),
        (
            "tcp_destroy_sock",
            &["listen_drops", "accept_queue", "connects"],
        ),
        ("tcp_send_reset", &["resets"]),
    ];
    for (missing, signals) in cases {
        less_than_exact(&check(&["--no-probe", missing]), missing, signals);
    }
}

/// What stands in for one function's programs may be less than exact, and is never called exact.
#[test]
fn a_function_that_is_missing_lowers_what_is_claimed() {
    require!(require::root());
    let drops: &[&str] = &["listen_drops", "listen_overflows", "syn_cookies"];
    for missing in ["tcp_v4_conn_request", "tcp_check_req", "cookie_v4_check"] {
        less_than_exact(&check(&["--no-probe", missing]), missing, drops);
    }
}

fn less_than_exact(survey: &Value, missing: &str, signals: &[&str]) {
    for signal in signals {
        let info = find(survey, "signals", "signal", signal);
        assert_ne!(info["exactness"], "exact", "{missing}: {info:#}");
    }
}

#[test]
fn without_the_numbers_of_the_counters_no_difference_is_taken() {
    require!(require::root());
    let survey = survey("LINUX_MIB_LISTENDROPS");
    let info = find(&survey, "signals", "signal", "listen_drops");
    let method = info["method"].as_str().unwrap();
    assert!(!["fentry", "kprobe"].contains(&method), "{info:#}");
    less_than_exact(&survey, "ListenDrops", &["listen_drops", "syn_cookies"]);
}
