//! The queries in `deploy/`, as Grafana and Prometheus send them.

use std::{fs, path::PathBuf};

use serde_json::Value;

/// A query and where it stands.
pub(crate) struct Query {
    pub(crate) place: String,
    pub(crate) text: String,
}

/// All of them.
pub(crate) fn all() -> Vec<Query> {
    let mut queries = Vec::new();
    for name in ["alerts.yml", "recording.yml"] {
        rules(&read(&format!("prometheus/{name}")), &mut queries);
    }
    let folder = deploy("grafana");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        dashboard(&name, &fs::read_to_string(path).unwrap(), &mut queries);
    }
    queries
}

/// A file or folder of `deploy/`.
pub(crate) fn deploy(path: &str) -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.join("../deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap()
}

/// The expressions of alerts; of recording rules what is recorded, too.
fn rules(text: &str, queries: &mut Vec<Query>) {
    let file: Value = serde_saphyr::from_str(text).unwrap();
    let groups = file["groups"].as_array().unwrap();
    for rule in groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
    {
        let text = rule["expr"].as_str().unwrap();
        match rule["alert"].as_str() {
            Some(alert) => queries.push(Query {
                place: format!("alert {alert}"),
                // So much for minutes would take minutes.
                text: ["> 50", "> 0.5", "> 0.1", "> 1\n"]
                    .iter()
                    .fold(text.to_owned(), |text, bound| text.replace(bound, "> 0\n")),
            }),
            None => {
                let name = rule["record"].as_str().unwrap();
                for text in [text, name] {
                    queries.push(Query {
                        place: format!("rule {name}"),
                        text: text.to_owned(),
                    });
                }
            }
        }
    }
}

/// The expressions of panels, and the series from which variables take their values.
fn dashboard(name: &str, text: &str, queries: &mut Vec<Query>) {
    let dashboard: Value = serde_json::from_str(text).unwrap();
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(definition) = variable["definition"].as_str() else {
            continue;
        };
        let inside = definition.strip_prefix("label_values(").unwrap();
        let (series, _) = inside.rsplit_once(", ").unwrap();
        queries.push(Query {
            place: format!("{name}: ${}", variable["name"].as_str().unwrap()),
            text: resolved(series),
        });
    }
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push(Query {
                place: format!("{name}: {}", panel["title"].as_str().unwrap()),
                text: resolved(target["expr"].as_str().unwrap()),
            });
        }
    }
}

/// With the values that Grafana puts in place of variables: an interval, or all.
fn resolved(query: &str) -> String {
    let query = query
        .replace("$__rate_interval", "5m")
        .replace("$__range", "1h");
    let mut parts = query.split('$');
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        text.push_str(".*");
        text.push_str(part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_'));
    }
    text
}
