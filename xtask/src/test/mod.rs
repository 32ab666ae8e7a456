//! `cargo xtask test`: one build, then every test program, each as the user it needs.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build::{self, Artifact};
use crate::{command, setup, workspace};

mod tally;

use tally::Tally;

/// Options of `test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Leave out the tests of the kernel side, which need root
    #[arg(long)]
    no_kernel: bool,
    /// Write golden files anew instead of comparing with them
    #[arg(long)]
    bless: bool,
}

/// Builds and runs the tests; the last line printed is `N passed, N failed`.
pub(crate) fn test(args: &Args) -> Result<()> {
    setup::ensure(setup::Scope::Test)?;
    let mut cargo = workspace::cargo("test");
    cargo.args(["--workspace", "--exclude", "netobs-ebpf", "--no-run"]);
    let (kernel, ordinary): (Vec<_>, Vec<_>) = build::artifacts(&mut cargo)?
        .into_iter()
        .filter(is_test)
        .partition(is_kernel);

    let mut tally = Tally::default();
    for artifact in &ordinary {
        tally.add(run_ordinary(artifact, args)?);
    }
    tally.add(run_documentation(args)?);
    if args.no_kernel {
        println!("kernel: left out (--no-kernel)");
    } else {
        for artifact in &kernel {
            tally.add(run_kernel(artifact, args)?);
        }
    }
    println!("{tally}");
    if tally.failed > 0 {
        bail!("{} failed; their output is above", tally.failed);
    }
    Ok(())
}

/// Test programs, not the binaries that cargo builds for them to start: it puts those in `deps`.
fn is_test(artifact: &Artifact) -> bool {
    artifact
        .executable
        .parent()
        .is_some_and(|folder| folder.ends_with("deps"))
}

/// `netobs/tests/kernel`: loads programs into the kernel and makes network namespaces.
fn is_kernel(artifact: &Artifact) -> bool {
    artifact.target.name == "kernel" && artifact.target.kind.iter().any(|kind| kind == "test")
}

/// Runs a test program as the user; its output is shown when something failed.
fn run_ordinary(artifact: &Artifact, args: &Args) -> Result<Tally> {
    let mut program = Command::new(&artifact.executable);
    let folder = folder(artifact)?;
    program
        .current_dir(folder)
        .env("CARGO_MANIFEST_DIR", folder)
        .env("PATH", workspace::path());
    if args.bless {
        program.env("NETOBS_BLESS", "1");
    }
    program.args(&args.filter);
    tally::quiet(
        &format!("{} {}", package(folder), artifact.target.name),
        &mut program,
    )
}

/// Runs the examples in the documentation.
fn run_documentation(args: &Args) -> Result<Tally> {
    let mut cargo = workspace::cargo("test");
    cargo.args([
        "--workspace",
        "--exclude",
        "netobs-ebpf",
        "--doc",
        "--quiet",
    ]);
    if let Some(filter) = &args.filter {
        cargo.args(["--", filter]);
    }
    tally::quiet("documentation", &mut cargo)
}

/// Runs the kernel tests as root, one after the other; they take long, so each line is shown as it
/// comes. What a test cannot do on this machine is a failure here, never a silent skip.
fn run_kernel(artifact: &Artifact, args: &Args) -> Result<Tally> {
    let folder = folder(artifact)?;
    let mut program = command::as_root("env")?;
    let mut path = std::ffi::OsString::from("PATH=");
    path.push(workspace::path());
    let mut manifest = std::ffi::OsString::from("CARGO_MANIFEST_DIR=");
    manifest.push(folder);
    program
        .current_dir(folder)
        .arg(path)
        .arg(manifest)
        .arg("NETOBS_REQUIRE=1");
    program
        .arg(&artifact.executable)
        .arg("--test-threads=1")
        .args(&args.filter);
    program.stdin(Stdio::inherit());
    tally::loud("kernel", &mut program)
}

fn folder(artifact: &Artifact) -> Result<&Path> {
    artifact
        .manifest_path
        .parent()
        .context("cargo named a manifest without a folder")
}

fn package(folder: &Path) -> String {
    folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
