//! `cargo xtask build`.

use std::env;
use std::fs;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{command, setup, workspace};

/// Options of `build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build with optimisations
    #[arg(long)]
    pub(crate) release: bool,
    /// Link everything in: the binary then runs on any distribution
    #[arg(long = "static")]
    pub(crate) linked_in: bool,
    /// Build for this target instead of this machine's
    #[arg(long, value_name = "TRIPLE")]
    pub(crate) target: Option<String>,
}

/// Builds the agent and says where it is.
pub(crate) fn build(args: &Args) -> Result<()> {
    let binary = agent(args)?;
    let size = fs::metadata(&binary)
        .with_context(|| format!("failed to read the size of {}", binary.display()))?
        .len();
    println!(
        "{}  {}.{} MB",
        binary.display(),
        size / 1_000_000,
        size / 100_000 % 10
    );
    Ok(())
}

/// Builds the agent; returns the path of the binary.
pub(crate) fn agent(args: &Args) -> Result<PathBuf> {
    setup::ensure(setup::Scope::Build)?;
    let mut cargo = workspace::cargo("build");
    cargo.args(["--package", "netobs", "--bin", "netobs"]);
    if args.release {
        cargo.arg("--release");
    }
    if args.linked_in {
        let mut flags = env::var("RUSTFLAGS").unwrap_or_default();
        flags.push_str(" -C target-feature=+crt-static");
        cargo.env("RUSTFLAGS", flags.trim_start());
    }
    // With a target named, RUSTFLAGS apply to it alone: build scripts and macros, which cannot be
    // linked statically, stay as they are.
    if let Some(target) = &args.target {
        cargo.args(["--target", target]);
    } else if args.linked_in {
        cargo.args(["--target", &host()?]);
    }
    artifacts(&mut cargo)?
        .into_iter()
        .find(|artifact| artifact.target.name == "netobs")
        .map(|artifact| artifact.executable)
        .context("cargo built the agent but named no binary")
}

/// A program that cargo built.
pub(crate) struct Artifact {
    pub(crate) executable: PathBuf,
    pub(crate) manifest_path: PathBuf,
    pub(crate) target: Target,
}

/// What cargo says about the target that a program was built from.
#[derive(Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
}

/// Runs a cargo that builds, and lists the programs it made; its messages go to the user.
pub(crate) fn artifacts(cargo: &mut Command) -> Result<Vec<Artifact>> {
    cargo
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().context("failed to start cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut artifacts = Vec::new();
    for message in serde_json::Deserializer::from_reader(BufReader::new(stdout)).into_iter() {
        let message: Message = message.context("failed to read cargo's messages")?;
        if message.reason != "compiler-artifact" {
            continue;
        }
        if let (Some(executable), Some(manifest_path), Some(target)) =
            (message.executable, message.manifest_path, message.target)
        {
            artifacts.push(Artifact {
                executable,
                manifest_path,
                target,
            });
        }
    }
    let status = child.wait().context("failed to wait for cargo")?;
    if !status.success() {
        bail!("the build failed; cargo's messages are above");
    }
    Ok(artifacts)
}

/// This machine's target triple.
fn host() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    command::output(Command::new(rustc).arg("-vV"))
        .and_then(|text| {
            Some(
                text.lines()
                    .find_map(|line| line.strip_prefix("host: "))?
                    .to_owned(),
            )
        })
        .context("failed to ask rustc for this machine's target")
}
