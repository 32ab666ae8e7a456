//! Names of metrics: those that dashboards, rules and docs use are those that the agent has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::folder;
use crate::workspace;

/// Prefixes of the agent's families.
const PREFIXES: &[&str] = &["netobs_", "process_"];

/// Words with such a prefix that are no metrics: crates, and settings of the environment.
const OTHERS: &[&str] = &["netobs_common", "netobs_ebpf"];

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
        } else if path.extension().is_some_and(|extension| {
            ["json", "yaml", "yml", "md"].contains(&extension.to_string_lossy().as_ref())
        }) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
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

/// Names of the samples that the agent can serve, from the sources of its families.
fn samples() -> Result<BTreeSet<String>> {
    let folder = workspace::root().join("netobs/src/metrics");
    let mut samples = BTreeSet::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))?
    {
        let path = entry.context("failed to list a folder")?.path();
        let text = fs::read_to_string(&path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        for (name, kind) in families(&path, &text)? {
            match kind {
                Kind::Counter => {
                    samples.insert(format!("{name}_total"));
                }
                Kind::Gauge => {
                    samples.insert(name);
                }
                Kind::Histogram => {
                    samples.extend(["bucket", "sum", "count"].map(|end| format!("{name}_{end}")));
                    samples.insert(name);
                }
            }
        }
    }
    ensure!(!samples.is_empty(), "no family found in netobs/src/metrics");
    Ok(samples)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Reads `const NAME: Family = Family { name: "x", ...` and how `NAME` is encoded.
fn families(path: &Path, text: &str) -> Result<BTreeMap<String, Kind>> {
    let dense: String = text.split_whitespace().collect();
    let mut families = BTreeMap::new();
    for declaration in dense.split("const").skip(1) {
        let Some((constant, rest)) = declaration.split_once(":Family=Family{name:\"") else {
            continue;
        };
        let name = rest.split('"').next().unwrap_or_default().to_owned();
        let encoded = |method: &str| {
            dense.contains(&format!("{constant}.{method}("))
                || dense.contains(&format!("{method}({constant},"))
        };
        let kind = [
            ("counter", Kind::Counter),
            ("gauge", Kind::Gauge),
            ("histogram", Kind::Histogram),
        ]
        .into_iter()
        .find_map(|(method, kind)| encoded(method).then_some(kind))
        .with_context(|| format!("{}: how is {name} encoded?", path.display()))?;
        families.insert(name, kind);
    }
    Ok(families)
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
    fn reads_families_and_their_kinds() -> Result<()> {
        let text = "const A: Family = Family {\n name: \"n_a\",\n};\nconst B: Family = Family {
            name: \"n_b\" };\nfn f() { A\n.counter(e); gauge(B, e)?; }";
        let families = families(Path::new("p"), text)?;
        assert_eq!(families["n_a"], Kind::Counter);
        assert_eq!(families["n_b"], Kind::Gauge);
        assert!(super::families(Path::new("p"), &text.replace("gauge", "gage")).is_err());
        Ok(())
    }
}
