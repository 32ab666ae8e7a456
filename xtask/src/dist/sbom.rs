//! Bills of materials in CycloneDX 1.5, by cargo-cyclonedx, the tool of the standard's own project.
//!
//! Two: the agent's, and that of its kernel side, whose object is inside the agent's binary.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{command, workspace};

/// Pinned, so that a new release does not change the bill of an old commit.
const VERSION: &str = "0.5.9";

/// The workspace's packages, and those of them that are shipped.
const MEMBERS: [&str; 6] = [
    "netobs",
    "netobs-common",
    "netobs-ebpf",
    "testbed",
    "vm-init",
    "xtask",
];
const SHIPPED: [&str; 2] = ["netobs", "netobs-ebpf"];

/// Writes `NAME-VERSION.cdx.json` for each into `folder`.
pub(super) fn write(folder: &Path, version: &str, seconds: u64) -> Result<()> {
    if workspace::find("cargo-cyclonedx").is_none() {
        install()?;
    }
    let file = format!("{version}.cdx");
    let mut cargo = workspace::cargo("cyclonedx");
    cargo
        .args(["--format", "json", "--spec-version", "1.5", "--quiet"])
        .args(["--override-filename", &file])
        // With it there is no serial number, and the time is the commit's.
        .env("SOURCE_DATE_EPOCH", seconds.to_string());
    command::run_quietly(&mut cargo).context("failed to write the bills of materials")?;
    // Paths of this machine are nobody's business, and differ from one checkout to the next.
    let root = workspace::root().display().to_string();
    for package in MEMBERS {
        // The tool writes beside the manifest of each member.
        let written = workspace::root().join(package).join(format!("{file}.json"));
        let text = fs::read_to_string(&written)
            .with_context(|| format!("cargo-cyclonedx wrote no {}", written.display()))?;
        fs::remove_file(&written)
            .with_context(|| format!("failed to remove {}", written.display()))?;
        if SHIPPED.contains(&package) {
            let path = folder.join(format!("{package}-{file}.json"));
            fs::write(&path, text.replace(&root, "."))
                .with_context(|| format!("failed to write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Builds the tool into cargo's own folder of programs, where the next clone finds it.
fn install() -> Result<()> {
    println!("building cargo-cyclonedx {VERSION} with cargo install (about two minutes)");
    let mut cargo = workspace::cargo("install");
    cargo
        .args(["cargo-cyclonedx", "--version", VERSION, "--locked"])
        .env_remove("CARGO_TARGET_DIR");
    command::run_quietly(&mut cargo).context("failed to build cargo-cyclonedx")
}
