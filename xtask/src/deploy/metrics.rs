//! Names of metrics: those that dashboards, rules and docs use are those that the agent has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::folder;
use crate::workspace;

/// Prefixes of the agent's families.
const PREFIXES: &[&str] = &["netobs_", "process_"];

/// Words with such a prefix that are no metrics: crates, and a value of the label `family`, which
/// stands for all families of listeners.
const OTHERS: &[&str] = &["netobs_common", "netobs_ebpf", "netobs_tcp_listeners"];

pub(super) fn check() -> Result<()> {
    let samples = samples()?;
    let mut findings = Vec::new();
    for path in files()? {
        let text = fs::read_to_string(&path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            for word in words(line) {
                if !samples.contains(word) && !OTHERS.contains(&word) {
                    let path = path.strip_prefix(workspace::root()).unwrap_or(&path);
                    findings.push(format!("{}:{}: {word}", path.display(), number + 1));
                }
            }
        }
    }
    if !findings.is_empty() {
        bail!("the agent has no such metric:\n  {}", findings.join("\n  "));
    }
    Ok(())
}

/// Every file of `deploy/` and `docs/`.
fn files() -> Result<Vec<PathBuf>> {
    let mut open = vec![folder(), workspace::root().join("docs")];
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in
                fs::read_dir(&path).with_context(|| format!("failed to read {}", path.display()))?
            {
                open.push(entry.context("failed to list a folder")?.path());
            }
        } else if is_schema(&path) {
            // It names the members of a report, not metrics.
        } else if path.extension().is_some_and(|extension| {
            ["json", "yaml", "yml", "md"].contains(&extension.to_string_lossy().as_ref())
        }) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_schema(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".schema.json")
}

/// The words of a line that look like metrics. `netobs_tcp_*` and `netobs_` stand for many.
fn words(line: &str) -> Vec<&str> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    line.split(|c| !part(c))
        // A recording rule has a colon, a placeholder of the docs a capital.
        .filter(|word| !word.contains(|c: char| c == ':' || c.is_ascii_uppercase()))
        .filter(|word| !word.ends_with('_'))
        .filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
        .collect()
}

/// Names of the samples that the agent can serve, from `docs/metrics.md`: a test of the agent
/// writes it from the code and fails when the two differ.
fn samples() -> Result<BTreeSet<String>> {
    let path = workspace::root().join("docs/metrics.md");
    let text =
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let samples: BTreeSet<String> = text.lines().flat_map(row).collect();
    ensure!(!samples.is_empty(), "docs/metrics.md lists no family");
    Ok(samples)
}

/// The samples of a row of the table: ``| `name` | type | labels | meaning |``.
fn row(line: &str) -> Vec<String> {
    let mut cells = line.split('|').skip(1).map(str::trim);
    let name = cells.next().unwrap_or_default().trim_matches('`');
    match cells.next() {
        Some("counter" | "gauge") => vec![name.to_owned()],
        Some("histogram") => ["", "_bucket", "_sum", "_count"]
            .map(|end| format!("{name}{end}"))
            .into(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_names_in_queries_and_prose() {
        assert_eq!(
            words("sum(rate(netobs_a_total{x=\"y\"}[5m])) / netobs:rule, netobs_tcp_* `process_b`"),
            ["netobs_a_total", "process_b"]
        );
    }

    #[test]
    fn a_histogram_has_three_kinds_of_samples() {
        assert_eq!(row("| `n_total` | counter | `a` | A. |"), ["n_total"]);
        assert_eq!(
            row("| `n` | histogram | | A. |"),
            ["n", "n_bucket", "n_sum", "n_count"]
        );
        assert!(row("| family | type | labels | meaning |").is_empty());
        assert!(row("text").is_empty());
    }
}
