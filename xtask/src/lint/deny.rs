//! Licences, sources and advisories of what we depend on, by cargo-deny and `deny.toml`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{command, workspace};

/// Pinned, so that a new release with new checks does not break an old commit.
const VERSION: &str = "0.20.2";

/// Checks `deny.toml`. The advisories are checked when their database can be fetched; an
/// unreachable database is said, and is no failure.
pub(super) fn check() -> Result<()> {
    if workspace::find("cargo-deny").is_none() {
        install()?;
    }
    let mut deny = deny(&["bans", "licenses", "sources"]);
    command::run(&mut deny)?;

    let output = deny_advisories().context("failed to start cargo-deny")?;
    if output.status.success() {
        return Ok(());
    }
    let messages = String::from_utf8_lossy(&output.stderr);
    if messages.contains("failed to fetch advisory database") {
        println!("advisories: not checked, their database could not be fetched");
        return Ok(());
    }
    eprint!("{messages}");
    bail!("an advisory concerns a dependency")
}

fn deny_advisories() -> std::io::Result<std::process::Output> {
    deny(&["advisories"]).stdin(Stdio::null()).output()
}

/// `cargo deny check` with the named checks.
fn deny(checks: &[&str]) -> Command {
    let mut deny = workspace::cargo("deny");
    deny.args([
        "--log-level",
        "error",
        "--workspace",
        "check",
        "--hide-inclusion-graph",
    ]);
    deny.args(checks);
    deny
}

/// Builds cargo-deny into cargo's own folder of programs, where the next clone finds it.
fn install() -> Result<()> {
    println!("building cargo-deny {VERSION} with cargo install (about two minutes)");
    let mut cargo = workspace::cargo("install");
    cargo
        .args(["cargo-deny", "--version", VERSION, "--locked"])
        .env_remove("CARGO_TARGET_DIR");
    command::run_quietly(&mut cargo).context("failed to build cargo-deny")
}
