//! Checks of what is in `deploy/`: a part of `cargo xtask lint`.
//!
//! Manifests and chart are rendered by the tools that users have, validated against Kubernetes's
//! own schemas, and compared with each other; dashboards and rules may only name metrics that the
//! agent has.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

mod manifests;
mod metrics;
mod queries;
mod tools;

use tools::Tools;

/// Runs every check of the folder.
pub(crate) fn check() -> Result<()> {
    metrics::check()?;
    queries::check()?;
    let tools = Tools::get()?;
    versions()?;
    manifests::check(&tools)
}

/// `deploy/` of the workspace.
fn folder() -> PathBuf {
    workspace::root().join("deploy")
}

/// The version is the workspace's; where another file has to repeat it, it is the same.
pub(crate) fn versions() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("helm/netobs/Chart.yaml", format!("appVersion: {version}")),
        (
            "kubernetes/base/kustomization.yaml",
            format!("newTag: {version}"),
        ),
        (
            "kubernetes/base/daemonset.yaml",
            format!("image: ghcr.io/netobs/netobs:{version}"),
        ),
    ] {
        let path = folder().join(file);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        ensure!(
            text.lines().any(|found| found.trim() == line),
            "deploy/{file} has no line `{line}`: the version has changed"
        );
    }
    Ok(())
}

/// What a command prints; its messages are shown when it fails.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("failed to start {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} failed:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed no text"))
}
