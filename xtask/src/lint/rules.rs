//! The house rules that no compiler knows: which room may use which, where `unsafe` and aya live,
//! how long a file may be, and that no file names a place on somebody's machine.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::source;
use crate::{command, workspace};

/// The agent's rooms (modules of `netobs/src`), and which others each may use. A room that is not
/// in the table meets all others, as `app` and `main` do; only those listed in [`EDGES`] may.
const ROOMS: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("audit", &["sys"]),
    ("bpf", &["sys"]),
    ("probes", &["bpf", "sys"]),
    ("path", &["sys"]),
    ("ledger", &["bpf", "path", "probes", "sys"]),
    ("names", &["ledger", "path", "sys"]),
    ("recorder", &["sys"]),
    ("trace", &["ledger", "recorder", "sys"]),
    (
        "metrics",
        &["audit", "bpf", "ledger", "probes", "recorder", "sys"],
    ),
    (
        "diagnose",
        &["audit", "ledger", "metrics", "path", "probes", "sys"],
    ),
    ("top", &["audit", "diagnose", "ledger"]),
    ("web", &["metrics"]),
];

/// Where rooms meet, and what the user typed or sees: nothing in [`ROOMS`] may use these.
const EDGES: &[&str] = &["agent", "app", "cli", "config", "lib", "logging", "main"];

/// The homes of `unsafe`.
const UNSAFE: &[&str] = &[
    "netobs/src/bpf/",
    "netobs/src/sys/",
    "netobs-common/src/pod.rs",
    "netobs-ebpf/",
    "testbed/",
    // Processes made poor or strange on purpose, between fork and exec.
    "netobs/tests/kernel/",
    // The first process of a guest.
    "vm-init/",
];

/// The homes of the crates that make the bpf() system call.
const AYA: &[&str] = &["netobs/src/bpf/", "netobs-common/"];

/// Longer files want an argument in review; much longer ones are split.
const LONG: usize = 400;
const TOO_LONG: usize = 800;

/// First folders that every system has: naming them betrays no machine.
const STANDARD: &[&str] = &[
    "bin", "boot", "dev", "etc", "home", "lib", "media", "mnt", "opt", "proc", "root", "run",
    "srv", "sys", "tmp", "usr", "var", "Users",
];

/// Reads every file that is or will be committed and lists what breaks a rule.
pub(super) fn check() -> Result<()> {
    let root = workspace::root();
    let places = places(&root);
    let mut findings = Vec::new();
    for path in files(&root)? {
        // Deleted but not yet committed, or not text: nothing to say about it.
        let Ok(text) = fs::read_to_string(root.join(&path)) else {
            continue;
        };
        findings.extend(machine_paths(&path, &text, &places));
        if path.ends_with(".rs") {
            findings.extend(rust(&path, &text));
        }
    }
    for finding in &findings {
        eprintln!("  {finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    Ok(())
}

/// Every file that git knows or does not ignore.
fn files(root: &Path) -> Result<Vec<String>> {
    let mut git = std::process::Command::new("git");
    git.arg("-C").arg(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let list =
        command::output(&mut git).context("failed to list the files: is this a checkout?")?;
    Ok(list.split_terminator('\0').map(str::to_owned).collect())
}

fn rust(path: &str, text: &str) -> Vec<String> {
    let code = source::code_only(text);
    let mut findings = Vec::new();
    let length = text.lines().count();
    if length > TOO_LONG {
        findings.push(format!(
            "{path}: {length} lines, more than {TOO_LONG}: split it"
        ));
    } else if length > LONG {
        println!("  {path}: {length} lines, more than {LONG}: is it one thing?");
    }
    if !UNSAFE.iter().any(|home| path.starts_with(home)) {
        for line in source::lines_with(&code, "unsafe") {
            findings.push(format!("{path}:{line}: `unsafe` outside its homes"));
        }
    }
    if !AYA.iter().any(|home| path.starts_with(home)) {
        for name in ["aya", "aya_log", "aya_obj"] {
            for line in source::lines_with(&code, name) {
                findings.push(format!("{path}:{line}: `{name}` outside netobs/src/bpf"));
            }
        }
    }
    if let Some(room) = room_of(path) {
        findings.extend(dependencies(path, room, &code));
    }
    findings
}

/// The room that a file of the agent belongs to.
fn room_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("netobs/src/")?;
    Some(inside.split('/').next()?.trim_end_matches(".rs"))
}

/// Uses of rooms that this one may not use.
fn dependencies(path: &str, room: &str, code: &str) -> Vec<String> {
    if EDGES.contains(&room) {
        return Vec::new();
    }
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "{path}: room `{room}` is in no table of xtask/src/lint/rules.rs"
        )];
    };
    let known: BTreeSet<&str> = ROOMS
        .iter()
        .map(|(name, _)| *name)
        .chain(EDGES.iter().copied())
        .collect();
    let mut findings = Vec::new();
    for (offset, after) in source::words(code, "crate") {
        let line = code.get(..offset).unwrap_or_default().matches('\n').count() + 1;
        for used in named(after) {
            if used != room && known.contains(used) && !allowed.contains(&used) {
                findings.push(format!("{path}:{line}: `{room}` may not use `{used}`"));
            }
        }
    }
    findings
}

/// The modules named directly below `crate`: `::a::b` names a, `::{a::{b, c}, d}` names a and d.
fn named(after: &str) -> Vec<&str> {
    let Some(after) = after.trim_start().strip_prefix("::") else {
        return Vec::new();
    };
    let identifier = |text: &'_ str| {
        text.find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len())
    };
    let after = after.trim_start();
    let Some(group) = after.strip_prefix('{') else {
        return after.get(..identifier(after)).into_iter().collect();
    };
    let mut names = Vec::new();
    let mut depth = 1_usize;
    let mut expecting = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' => expecting = depth == 1,
            c if expecting && !c.is_whitespace() => {
                let rest = group.get(at..).unwrap_or_default();
                names.extend(rest.get(..identifier(rest)));
                expecting = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// Folders that exist on this machine or on somebody's, none of which a file may name.
fn places(root: &Path) -> Vec<String> {
    let homes = ["HOME", "CARGO_HOME"]
        .into_iter()
        .filter_map(env::var_os)
        .map(PathBuf::from);
    let mut places: BTreeSet<String> = homes
        .filter_map(|home| Some(home.to_str()?.to_owned()))
        .collect();
    // The first folder above the checkout that is not the system's own.
    places.extend(
        root.ancestors()
            .filter(|folder| {
                let name = folder.strip_prefix("/").ok().and_then(Path::to_str);
                name.is_some_and(|name| !name.is_empty() && !STANDARD.contains(&name))
            })
            .last()
            .and_then(Path::to_str)
            // A checkout in /netobs or /src is named like a folder of its own.
            .filter(|folder| !root.join(folder.trim_start_matches('/')).exists())
            .map(str::to_owned),
    );
    places.extend(["home", "Users"].map(|folder| format!("/{folder}")));
    places.retain(|place| place.len() > 1);
    places
        .into_iter()
        .map(|place| format!("{}/", place.trim_end_matches('/')))
        .collect()
}

/// Lines that name one of the places as an absolute path.
fn machine_paths(path: &str, text: &str, places: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for place in places {
            let named = line.match_indices(place.as_str()).any(|(at, _)| {
                let before = line.get(..at).unwrap_or_default();
                let after = line.get(at + place.len()..).unwrap_or_default();
                // Not in the middle of another path, and with something below it.
                !before.ends_with(|c: char| c.is_alphanumeric() || "_-.}>*".contains(c))
                    && after.starts_with(|c: char| c.is_alphanumeric() || "._".contains(c))
            });
            if named {
                findings.push(format!("{path}:{}: names a place below {place}", index + 1));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_nested_use_groups() {
        assert_eq!(named("::sys::btf::Btf;"), ["sys"]);
        assert_eq!(
            named("::{sys::{a, b}, metrics, web::{\n c}};"),
            ["sys", "metrics", "web"]
        );
        assert_eq!(named(" fn"), [] as [&str; 0]);
    }

    #[test]
    fn a_room_uses_only_those_below_it() {
        let code = "use crate::sys::Btf;\nuse crate::{model::X,\n metrics};\ncrate::app::go();";
        assert_eq!(
            dependencies("p", "probes", code),
            [
                "p:2: `probes` may not use `metrics`",
                "p:4: `probes` may not use `app`"
            ]
        );
        assert!(dependencies("p", "app", code).is_empty());
        assert_eq!(dependencies("p", "shed", "").len(), 1);
    }

    #[test]
    fn every_room_is_above_those_it_uses() {
        for (at, (room, allowed)) in ROOMS.iter().enumerate() {
            for used in *allowed {
                let below = ROOMS.iter().position(|(name, _)| name == used);
                assert!(below.is_some_and(|below| below < at), "{room} uses {used}");
            }
        }
    }

    #[test]
    fn unsafe_and_aya_stay_at_home() {
        let text = "fn f() { unsafe { aya::x() } } // unsafe aya";
        assert_eq!(rust("netobs/src/main.rs", text).len(), 2);
        assert!(rust("netobs/src/bpf/ring.rs", text).is_empty());
    }

    #[test]
    fn sees_places_but_not_parts_of_other_paths() {
        let place = format!("/{}/ann", "home");
        let places = [format!("{place}/")];
        assert_eq!(
            machine_paths("p", &format!("see {place}/x"), &places).len(),
            1
        );
        assert!(machine_paths("p", &format!("see /mnt{place}/x"), &places).is_empty());
        assert!(machine_paths("p", "see ~/x", &places).is_empty());
    }
}
