//! Fixture trees: a text file says what `/proc` and `/etc` hold, a temporary directory gets it,
//! and the same readers as in production read it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::audit::collect::read_fixture;
use crate::audit::counters;
use crate::audit::kernel::Kernel;
use crate::audit::persistent::Persistent;
use crate::audit::snapshot::{CounterWindow, Defaults, Listener, Machine, Namespace, Sockets};

pub(super) fn put(root: &Path, path: &str, content: &str) {
    let path = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Builds the tree that `text` describes, and reads it.
pub(super) fn machine(text: &str) -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut release = String::new();
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        if let Some(word) = line.strip_prefix("release ") {
            word.clone_into(&mut release);
        } else if let Some(name) = line.strip_prefix('[') {
            sections.push((name.trim_end_matches(']').to_owned(), Vec::new()));
        } else if let Some((_, lines)) = sections.last_mut() {
            lines.push(line);
        }
    }
    let mut ns = Namespace::empty(4_026_531_840, true);
    let mut sockets = Sockets::default();
    let mut window = CounterWindow::default();
    for (name, lines) in &sections {
        let words: Vec<&str> = name.split(' ').collect();
        match words.as_slice() {
            ["settings"] => {
                for line in lines {
                    let (key, value) = line.split_once('=').unwrap();
                    let path = format!("proc/sys/{}", key.trim().replace('.', "/"));
                    put(root, &path, &format!("{}\n", value.trim()));
                }
            }
            ["file", path] => put(
                root,
                path,
                &lines.iter().fold(String::new(), |mut all, l| {
                    writeln!(all, "{l}").unwrap();
                    all
                }),
            ),
            [when @ ("first" | "last"), prefix] => {
                let pairs: Vec<(&str, &str)> =
                    lines.iter().map(|l| l.split_once(' ').unwrap()).collect();
                let names: Vec<&str> = pairs.iter().map(|p| p.0).collect();
                let values: Vec<&str> = pairs.iter().map(|p| p.1).collect();
                let table = format!(
                    "{prefix}: {}\n{prefix}: {}\n",
                    names.join(" "),
                    values.join(" ")
                );
                if *when == "first" {
                    counters::netstat(&table, window.first.get_or_insert_default());
                    window.length = Some(Duration::from_secs(10));
                } else {
                    counters::netstat(&table, &mut window.last);
                }
            }
            ["listener", at, "queue", queue, "limit", limit, asked @ ..] => {
                let at: std::net::SocketAddr = at.parse().unwrap();
                sockets.listeners.push(Listener {
                    address: at.ip(),
                    port: at.port(),
                    uid: 33,
                    inode: 9,
                    process: Some("web".to_owned()),
                    queue: queue.parse().unwrap(),
                    limit: limit.parse().unwrap(),
                    syn_queue: 0,
                    asked: asked.get(1).map(|a| a.parse().unwrap()),
                    drops_first: Some(0),
                    drops: 0,
                });
            }
            other => panic!("{other:?}"),
        }
    }
    ns.settings = read_fixture(&root.join("proc"));
    ns.counters = window;
    ns.sockets = Some(sockets);
    Machine {
        kernel: Kernel::parse(&release),
        defaults: Defaults::default(),
        page_size: 4096,
        persistent: Persistent::load(root),
        host: ns,
        others: Vec::new(),
        hidden_processes: 0,
    }
}
