//! The alerting rules in `deploy/prometheus`, by promtool's own tests.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{path::Path, process::Command};

use testbed::require;

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "promtool {}\n{}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

#[test]
fn the_rules_are_valid() {
    require!(require::command("promtool"));
    promtool(&["check", "rules", "alerts.yml", "recording.yml"]);
}

#[test]
fn the_rules_fire_when_they_should() {
    require!(require::command("promtool"));
    promtool(&["test", "rules", "alerts.test.yml"]);
}

/// A rule that names a family which is not exposed never fires, and nobody notices.
#[test]
fn the_rules_name_families_that_exist() {
    let rules = [
        include_str!("../../deploy/prometheus/alerts.yml"),
        include_str!("../../deploy/prometheus/recording.yml"),
    ]
    .concat();
    let known: Vec<String> = netobs::metrics::descriptions()
        .into_iter()
        .flat_map(|family| match family.kind {
            // Descriptions name the family as a whole.
            "histogram" => ["", "_bucket", "_count", "_sum"]
                .map(|suffix| format!("{}{suffix}", family.name))
                .to_vec(),
            _ => vec![family.name],
        })
        .collect();
    // A recording rule has a colon before or behind its metric.
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let unknown: Vec<&str> = words
        .filter(|word| word.starts_with("netobs_") && !word.contains(':'))
        .filter(|word| !known.iter().any(|name| name == word))
        .collect();
    assert_eq!(unknown, [] as [&str; 0]);
}

/// The link of each alert leads to a section of its own.
#[test]
fn every_alert_has_its_runbook() {
    const PAGE: &str = "https://github.com/netobs/netobs/blob/main/docs/runbooks.md#";
    let rules = include_str!("../../deploy/prometheus/alerts.yml");
    let runbooks = include_str!("../../docs/runbooks.md");
    let after = |prefix: &'static str| {
        rules
            .lines()
            .filter_map(move |line| line.trim().strip_prefix(prefix))
    };
    let alerts: Vec<&str> = after("- alert: ").collect();
    assert!(!alerts.is_empty());
    let links: Vec<&str> = after("runbook_url: ").collect();
    let expected: Vec<String> = alerts
        .iter()
        .map(|alert| format!("{PAGE}{}", alert.to_lowercase()))
        .collect();
    assert_eq!(links, expected);
    let mut sections: Vec<&str> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let mut alerts = alerts;
    sections.sort_unstable();
    alerts.sort_unstable();
    assert_eq!(sections, alerts);
}
