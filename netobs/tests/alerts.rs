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
    promtool(&["check", "rules", "alerts.yml"]);
}

#[test]
fn the_rules_fire_when_they_should() {
    require!(require::command("promtool"));
    promtool(&["test", "rules", "alerts.test.yml"]);
}

/// A rule that names a family which is not exposed never fires, and nobody notices.
#[test]
fn the_rules_name_families_that_exist() {
    let rules = include_str!("../../deploy/prometheus/alerts.yml");
    let known: Vec<String> = netobs::metrics::descriptions()
        .into_iter()
        .map(|family| family.name)
        .collect();
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let unknown: Vec<&str> = words
        .filter(|word| word.starts_with("netobs_") && !known.iter().any(|name| name == word))
        .collect();
    assert_eq!(unknown, [] as [&str; 0]);
}
