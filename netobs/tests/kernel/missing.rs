//! Kernels that lack a member, a tracepoint, a function or a counter: simulated by type information in
//! which its name is another. What needs it is not attached and says why, what does not watches on,
//! and no signal claims to be exact.

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
    let path = types.path().to_str().unwrap();
    let output = binary(&["check", "--json", "--btf", path])
        .stdout(Stdio::piped())
        .output()
        .unwrap();
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
    // What is missing, a probe that needs it, and the signals that are less than exact without it.
    let cases: [(&str, &str, &[&str]); 5] = [
        (
            "sk_drops",
            "inet_sock_set_state",
            &["listen_drops", "listen_overflows", "accept_queue"],
        ),
        ("total_retrans", "tcp_retransmit_skb", &["retransmits"]),
        (
            "btf_trace_tcp_retransmit_synack",
            "tcp_retransmit_synack",
            &["syn_ack_retransmits"],
        ),
        (
            "btf_trace_tcp_destroy_sock",
            "tcp_destroy_sock",
            &["listen_drops", "accept_queue"],
        ),
        ("icsk_pending", "tcp_retransmit_skb", &["retransmits"]),
    ];
    for (missing, probe, signals) in cases {
        let survey = survey(missing);
        let status = find(&survey, "probes", "probe", probe);
        let reasons = status["reasons"].to_string();
        let named = missing.trim_start_matches("btf_trace_");
        assert!(reasons.contains(named), "{missing}: {status:#}");
        for signal in signals {
            let info = find(&survey, "signals", "signal", signal);
            assert_ne!(info["exactness"], "exact", "{missing}: {info:#}");
        }
        // Resets have nothing to do with any of these.
        let resets = find(&survey, "probes", "probe", "tcp_receive_reset");
        assert_eq!(resets["attached"], true, "{missing}: {resets:#}");
    }
}

#[test]
fn drops_are_never_counted_by_half_of_the_functions() {
    require!(require::root());
    // Without one of these, some drops would pass unseen; whatever serves then is no function probe
    // that claims to see all.
    for missing in ["LINUX_MIB_LISTENDROPS", "tcp_check_req", "tcp_req_err"] {
        let survey = survey(missing);
        let info = find(&survey, "signals", "signal", "listen_drops");
        let method = info["method"].as_str().unwrap();
        assert!(
            !["fentry", "kprobe"].contains(&method),
            "{missing}: {info:#}"
        );
        assert_ne!(info["exactness"], "exact", "{missing}: {info:#}");
        let cookies = find(&survey, "signals", "signal", "syn_cookies");
        assert_eq!(
            cookies["exactness"], "unavailable",
            "{missing}: {cookies:#}"
        );
    }
}
