//! A diagnosis of what was recorded: from the files of an agent that is gone, and from a running one.

use serde_json::Value;
use testbed::{Family, Link, Listener, NetNs, require, scenario};

use super::{assert_says, comm, finding, result};
use crate::support::{Agent, agent::binary};

fn diagnose(arguments: &[&str]) -> (i32, Value) {
    let mut all = vec!["diagnose", "--json"];
    all.extend(arguments);
    result(&binary(&all).output().unwrap())
}

#[test]
fn what_was_recorded_is_judged_afterwards() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let path = path.to_str().unwrap();
    let (a, b) = (NetNs::new("pasta").unwrap(), NetNs::new("pastb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    // Older than the agent.
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(2);
    let listener = builder.open(&a).unwrap();
    listener.fill().unwrap();
    let agent = Agent::start(&["--recorder.path", path]);
    scenario::overflow_syns(&listener, 23).unwrap();
    let sent_again = scenario::lossy_transfer(&link, Family::V4, 12_000_000, 8).unwrap();
    agent.recorded(61);

    let url = format!("http://{}", agent.address());
    let netns = a.inode().to_string();
    let holds = |(code, diagnosis): (i32, Value)| {
        assert_eq!(code, 3);
        assert_eq!(diagnosis["source"], "recorded");
        let found = finding(&diagnosis, "accept-queue-overflow");
        assert_eq!(found["events"], 23);
        assert_eq!(found["process"], comm().as_str());
        assert_says(found, &format!("port {}", listener.port()));
        assert_says(found, "a recording does not tell which");
        let found = finding(&diagnosis, "retransmissions");
        assert_eq!(found["events"], sent_again.retransmitted);
        assert_says(found, &format!("all go to one peer, {}", link.b.v4()));
        let blind: Vec<&Value> = diagnosis["not_seen"].as_array().unwrap().iter().collect();
        for what in ["time-stamps", "conntrack", "settings"] {
            assert!(blind.iter().any(|gap| gap["what"] == what), "{diagnosis:#}");
        }
    };
    holds(diagnose(&["--agent", &url, "--netns", &netns]));
    holds(diagnose(&[
        "--agent", &url, "--netns", &netns, "--since", "-5m",
    ]));
    agent.kill();
    holds(diagnose(&["--from", path, "--netns", &netns]));
    holds(diagnose(&[
        "--from", path, "--since", "-10m", "--until", "now", "--netns", &netns,
    ]));
    let (code, diagnosis) = diagnose(&["--from", path, "--until", "-10m"]);
    assert_eq!(
        (code, &diagnosis["events"]),
        (0, &0.into()),
        "{diagnosis:#}"
    );
}

#[test]
fn a_span_of_time_needs_a_past() {
    let output = binary(&["diagnose", "--since", "-5m"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--from or --agent"), "{text}");
    let output = binary(&["diagnose", "--from", "/nonexistent"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}
