//! `cargo xtask dist`: everything that a release has, in one folder.
//!
//! The version is the workspace's (`Cargo.toml`); every file name has it. Made twice from one commit
//! with the same compilers, every file is the same, byte by byte: times are the commit's, archives
//! are sorted and owned by root, and the bills of materials have no serial number.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::image::{Architecture, Entry, pack};
use crate::{build, command, deb, deploy, image, time, workspace};

mod sbom;

/// What the checksums stand in.
const SUMS: &str = "SHA256SUMS";

/// Files beside the binary in its archive, and where they come from.
const BESIDE: &[(&str, &str)] = &[
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-GPL-2.0", "LICENSE-GPL-2.0"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("netobs.toml", "deploy/debian/netobs.toml"),
    ("netobs.service", "deploy/systemd/netobs.service"),
];

/// Options of `dist`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Architecture to build for. May be repeated [default: this machine's]
    #[arg(long = "arch", value_name = "ARCH")]
    architectures: Vec<Architecture>,
    /// Where to put it all; what is there goes [default: dist in the workspace]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Builds binary, package, image, archives and bills of materials, and lists their checksums.
pub(crate) fn dist(args: &Args) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    deploy::versions()?;
    let seconds = time::of_the_source()?;
    if changed() {
        eprintln!("warning: the checkout has changes: no commit will give these files again");
    }
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| workspace::root().join("dist"));
    empty(&output)?;
    let mut architectures = args.architectures.clone();
    if architectures.is_empty() {
        architectures.push(Architecture::host()?);
    }
    architectures.dedup();

    for architecture in &architectures {
        let target = architecture.target();
        let package = deb::package(
            &deb::Args::of(target),
            &workspace::target_dir().join("debian"),
        )?;
        copy(&package, &output)?;
        let binary = build::agent(&build::Args {
            release: true,
            linked_in: true,
            target: Some(target.to_owned()),
        })?;
        let name = format!("netobs-{version}-linux-{}", architecture.name());
        let archive = pack(program(&name, &binary)?, seconds)?;
        write(&output.join(format!("{name}.tar.gz")), &archive.bytes)?;
    }
    let name = format!("netobs-{version}-deploy");
    let archive = pack(deployment(&name)?, seconds)?;
    write(&output.join(format!("{name}.tar.gz")), &archive.bytes)?;
    image::image(&image::Args::of(
        architectures.clone(),
        output.join(format!("netobs-{version}-image.tar")),
    ))?;
    sbom::write(&output, version, seconds)?;
    sums(&output)
}

/// Whether files differ from the commit. Not knowing is no reason to warn.
fn changed() -> bool {
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(workspace::root())
        .args(["status", "--porcelain", "--untracked-files=no"]);
    command::output(&mut git).is_some_and(|text| !text.trim().is_empty())
}

/// Makes a folder, without what an earlier run left there. Anything else there stays.
fn empty(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let sums = folder.join(SUMS);
    let Ok(text) = fs::read_to_string(&sums) else {
        return Ok(());
    };
    for name in text.lines().filter_map(|line| line.split_once("  ")) {
        let path = folder.join(Path::new(name.1).file_name().unwrap_or_default());
        if path.is_file() {
            fs::remove_file(&path)
                .with_context(|| format!("failed to remove {}", path.display()))?;
        }
    }
    fs::remove_file(&sums).with_context(|| format!("failed to remove {}", sums.display()))
}

fn copy(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().context("a package without a name")?;
    fs::copy(file, folder.join(name))
        .map(drop)
        .with_context(|| format!("failed to copy {}", file.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("failed to write {}", path.display()))
}

fn entry(path: String, mode: u32, from: &Path) -> Result<Entry> {
    let bytes = fs::read(from).with_context(|| format!("failed to read {}", from.display()))?;
    Ok(Entry { path, mode, bytes })
}

/// The binary with what belongs to it. Manual pages and completions are those of the package.
fn program(name: &str, binary: &Path) -> Result<Vec<Entry>> {
    let mut entries = vec![entry(format!("{name}/netobs"), 0o755, binary)?];
    for (inside, from) in BESIDE {
        let from = workspace::root().join(from);
        entries.push(entry(format!("{name}/{inside}"), 0o644, &from)?);
    }
    let generated = binary.with_file_name("package");
    for (folder, from) in [("man", generated.join("man")), ("completions", generated)] {
        for path in workspace::files(&from)? {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            if path.parent() == Some(&from) && !file.starts_with("changelog") {
                entries.push(entry(format!("{name}/{folder}/{file}"), 0o644, &path)?);
            }
        }
    }
    Ok(entries)
}

/// Manifests, chart, dashboards and rules.
fn deployment(name: &str) -> Result<Vec<Entry>> {
    let root = workspace::root().join("deploy");
    let mut entries = Vec::new();
    for folder in ["grafana", "helm", "kubernetes", "prometheus", "systemd"] {
        for path in workspace::files(&root.join(folder))? {
            let inside = path.strip_prefix(&root).unwrap_or(&path);
            entries.push(entry(format!("{name}/{}", inside.display()), 0o644, &path)?);
        }
    }
    Ok(entries)
}

/// Writes and prints the checksums of every file, as `sha256sum --check` reads them.
fn sums(folder: &Path) -> Result<()> {
    let mut text = String::new();
    for path in workspace::files(folder)? {
        let name = path.strip_prefix(folder).unwrap_or(&path).display();
        let bytes = fs::read(&path).with_context(|| format!("failed to read {name}"))?;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:x}  {name}", Sha256::digest(&bytes));
    }
    ensure!(!text.is_empty(), "nothing was built");
    write(&folder.join(SUMS), text.as_bytes())?;
    print!("{text}");
    println!("{}", folder.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_earlier_run_listed_goes() -> Result<()> {
        let folder = tempfile::tempdir()?;
        for name in ["old.deb", "mine"] {
            fs::write(folder.path().join(name), name)?;
        }
        let list = "0  old.deb\n0  ../../etc/passwd\n";
        fs::write(folder.path().join(SUMS), list)?;
        empty(folder.path())?;
        let left = workspace::files(folder.path())?;
        assert_eq!(left, [folder.path().join("mine")]);
        sums(folder.path())?;
        let text = fs::read_to_string(folder.path().join(SUMS))?;
        assert!(text.ends_with("  mine\n") && text.len() == 71, "{text}");
        Ok(())
    }

    #[test]
    fn the_deployment_has_rules_and_dashboards() -> Result<()> {
        let entries = deployment("n")?;
        let has = |path: &str| entries.iter().any(|entry| entry.path == path);
        assert!(has("n/prometheus/alerts.yml") && has("n/grafana/netobs.json"));
        assert!(has("n/helm/netobs/Chart.yaml"));
        Ok(())
    }
}
