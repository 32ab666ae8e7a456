//! The dashboards' queries are read by Prometheus's own parser.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::folder;
use crate::{command, setup, workspace};

pub(super) fn check() -> Result<()> {
    let mut queries = Vec::new();
    let dashboards = folder().join("grafana");
    for entry in fs::read_dir(&dashboards)
        .with_context(|| format!("failed to read {}", dashboards.display()))?
    {
        let path = entry.context("failed to list a folder")?.path();
        let text = fs::read_to_string(&path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        let dashboard: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is no JSON", path.display()))?;
        expressions(&dashboard, &mut queries);
    }
    ensure!(!queries.is_empty(), "the dashboards have no query");

    if workspace::find("promtool").is_none() {
        setup::ensure(setup::Scope::Test)?;
    }
    let promtool = workspace::find("promtool").context("promtool is missing")?;
    // promtool reads queries in rules only; JSON is YAML.
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(index, query)| json!({ "record": format!("q:{index}"), "expr": resolved(query) }))
        .collect();
    let file = json!({ "groups": [{ "name": "dashboards", "rules": rules }] });
    let folder = workspace::target_dir().join("tools");
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let path = folder.join("dashboards.json");
    fs::write(&path, file.to_string())
        .with_context(|| format!("failed to write {}", path.display()))?;
    command::run_quietly(Command::new(promtool).args(["check", "rules"]).arg(&path))
        .context("a query of a dashboard is wrong")
}

/// Every `expr` in a dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "expr") {
                    Some(query) => found.push(query.to_owned()),
                    None => expressions(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

/// A query as Grafana sends it: variables stand for an interval or for all values.
fn resolved(query: &str) -> String {
    let query = query
        .replace("$__rate_interval", "5m")
        .replace("$__range", "1h");
    let mut parts = query.split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(".*");
        text.push_str(part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_'));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_values() {
        assert_eq!(
            resolved("rate(a{b=~\"$c_d\",e=~\"$f\"}[$__rate_interval])"),
            "rate(a{b=~\".*\",e=~\".*\"}[5m])"
        );
    }

    #[test]
    fn queries_are_found_at_any_depth() {
        let mut found = Vec::new();
        expressions(
            &json!({"p": [{"t": {"expr": "a"}}, {"expr": "b"}]}),
            &mut found,
        );
        assert_eq!(found, ["a", "b"]);
    }
}
