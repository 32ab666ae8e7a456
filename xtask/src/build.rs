//! `cargo xtask build`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{command, cross, setup, workspace};

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
    let profile = if args.release { "release" } else { "dev" };
    agent_by(profile, args)
}

/// Builds an agent for an emulated guest.
pub(crate) fn agent_for_guests() -> Result<PathBuf> {
    let args = Args {
        release: false,
        linked_in: false,
        target: None,
    };
    agent_by("guest", &args)
}

fn agent_by(profile: &str, args: &Args) -> Result<PathBuf> {
    setup::ensure(setup::Scope::Build)?;
    let mut cargo = workspace::cargo("build");
    cargo.args(["--package", "netobs", "--bin", "netobs"]);
    cargo.args(["--profile", profile]);
    let mut flags = flags();
    if args.linked_in {
        flags.extend(["-C".into(), "target-feature=+crt-static".into()]);
        flags.extend(without_places());
        let x86 = args.target.as_deref().unwrap_or(env::consts::ARCH);
        if x86.starts_with("x86_64") {
            // 17,000 places that the program corrects for where it was loaded: 2 KB in place of 400.
            // GNU's linker for aarch64 does not know the form.
            flags.extend(["-C".into(), "link-arg=-Wl,-z,pack-relative-relocs".into()]);
            flags.extend(one_of_each()?);
        }
    }
    // With a target named, RUSTFLAGS apply to it alone: build scripts and macros, which cannot be
    // linked statically, stay as they are.
    if let Some(target) = &args.target {
        cross::prepare(target, &mut cargo, &mut flags)?;
        cargo.args(["--target", target]);
    } else if args.linked_in {
        cargo.args(["--target", &host()?]);
    }
    if !flags.is_empty() {
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    }
    artifacts(&mut cargo)?
        .into_iter()
        .find(|artifact| artifact.target.name == "netobs")
        .map(|artifact| artifact.executable)
        .context("cargo built the agent but named no binary")
}

/// The compiler's flags that the user set, as cargo would read them.
fn flags() -> Vec<String> {
    if let Ok(encoded) = env::var("CARGO_ENCODED_RUSTFLAGS") {
        return encoded.split('\x1f').map(str::to_owned).collect();
    }
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    flags.split_whitespace().map(str::to_owned).collect()
}

/// Flags that keep the places of this machine out of the binary: with them two checkouts build
/// the same one. The kernel side's are set where it is built.
fn without_places() -> Vec<String> {
    let mut flags = vec![format!(
        "--remap-path-prefix={}=.",
        workspace::root().display()
    )];
    if let Some(home) = crate::toolchain::cargo_bin()
        .as_deref()
        .and_then(Path::parent)
    {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    flags
}

/// Flags that keep one of several functions with the same instructions: 80 KB. Only LLVM's linker
/// does it, which comes with rustup's compiler; without it, nothing is said.
///
/// Functions may then have one address. Rust promises no other, and the C library compares none.
fn one_of_each() -> Result<Vec<String>> {
    let folder = sysroot()?
        .join("lib/rustlib")
        .join(host()?)
        .join("bin/gcc-ld");
    if !folder.join("ld.lld").is_file() {
        return Ok(Vec::new());
    }
    let by = ["-fuse-ld=lld".to_owned(), format!("-B{}", folder.display())];
    let arguments = by.into_iter().chain(["-Wl,--icf=all".to_owned()]);
    Ok(arguments
        .flat_map(|argument| ["-C".to_owned(), format!("link-arg={argument}")])
        .collect())
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

/// Where the compiler in use keeps its libraries.
pub(crate) fn sysroot() -> Result<PathBuf> {
    command::output(Command::new(rustc()).args(["--print", "sysroot"]))
        .map(|text| PathBuf::from(text.trim()))
        .context("failed to ask rustc for its sysroot")
}

/// The compiler that cargo will use.
fn rustc() -> OsString {
    env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// This machine's target triple.
pub(crate) fn host() -> Result<String> {
    command::output(Command::new(rustc()).arg("-vV"))
        .and_then(|text| {
            Some(
                text.lines()
                    .find_map(|line| line.strip_prefix("host: "))?
                    .to_owned(),
            )
        })
        .context("failed to ask rustc for this machine's target")
}
