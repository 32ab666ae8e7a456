//! `cargo xtask test`: one build, then every test program, each as the user it needs.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build::{self, Artifact};
use crate::{command, deb, image, setup, workspace};

mod arm64;
mod matrix;
mod tally;

use tally::Tally;

/// `netobs/tests/kernel`: loads programs into the kernel and makes network namespaces.
const KERNEL: &str = "kernel";
/// `netobs/tests/prometheus`: a Prometheus that scrapes the agent and answers every query.
const PROMETHEUS: &str = "prometheus";
/// `netobs/tests/containers`: runs the image, which another task makes.
const CONTAINERS: &str = "containers";

/// Options of `test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Leave out the tests of the kernel side, which need root
    #[arg(long)]
    no_kernel: bool,
    /// Only the kernel tests, in a guest of each of these kernels (5.10, 6.1, 6.12, sid; all when
    /// none is named) and on this machine's own
    #[arg(long, value_name = "KERNEL", num_args = 0.., conflicts_with_all = ["no_kernel", "bless", "containers"])]
    vm: Option<Vec<String>>,
    /// Besides every other test, the kernel tests in a guest of each kernel of the matrix
    #[arg(long, conflicts_with_all = ["no_kernel", "bless", "containers", "package", "systemd", "arm64", "vm"])]
    matrix: bool,
    /// Only the image under containerd: builds it, runs it as root with a DaemonSet's rights
    #[arg(long, conflicts_with_all = ["no_kernel", "bless"])]
    containers: bool,
    /// Only the Debian package: builds, installs, upgrades and purges it in a system of its own
    #[arg(long, conflicts_with_all = ["no_kernel", "bless", "containers", "filter"])]
    package: bool,
    /// Only the unit under a running systemd: installs the package in a system of its own and boots
    /// it in a container (systemd-nspawn)
    #[arg(long, conflicts_with_all = ["no_kernel", "bless", "containers", "package", "filter"])]
    systemd: bool,
    /// Only the kernel tests, built for arm64 and run in a guest with an arm64 kernel
    #[arg(long, conflicts_with_all = ["no_kernel", "bless", "containers", "package", "systemd"])]
    arm64: bool,
    /// Write golden files anew instead of comparing with them
    #[arg(long)]
    bless: bool,
}

/// Builds and runs the tests; the last line printed is `N passed, N failed`.
pub(crate) fn test(args: &Args) -> Result<()> {
    if args.containers {
        return containers(args);
    }
    if args.package {
        return deb::test();
    }
    if args.arm64 {
        return arm64::test(args.filter.as_deref());
    }
    if args.systemd {
        return deb::test_live();
    }
    if let Some(kernels) = &args.vm {
        return matrix::test(kernels, args.filter.as_deref());
    }
    setup::ensure(setup::Scope::Test)?;
    let mut cargo = workspace::cargo("test");
    cargo.args(["--workspace", "--exclude", "netobs-ebpf", "--no-run"]);
    let (kernel, ordinary): (Vec<_>, Vec<_>) = build::artifacts(&mut cargo)?
        .into_iter()
        .filter(is_test)
        .filter(|artifact| !is(artifact, CONTAINERS))
        .partition(|artifact| [KERNEL, PROMETHEUS].iter().any(|name| is(artifact, name)));

    let mut tally = Tally::default();
    for artifact in &ordinary {
        tally.add(run_ordinary(artifact, args)?);
    }
    tally.add(run_documentation(args)?);
    if args.no_kernel {
        println!("kernel: left out (--no-kernel)");
    } else {
        for artifact in &kernel {
            tally.add(if args.matrix && is(artifact, KERNEL) {
                matrix::run(artifact, &[], args.filter.as_deref())?
            } else {
                run_kernel(artifact, args)?
            });
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

/// Whether this is the test program of that name.
fn is(artifact: &Artifact, name: &str) -> bool {
    artifact.target.name == name && artifact.target.kind.iter().any(|kind| kind == "test")
}

/// Builds the image and runs it under containerd.
fn containers(args: &Args) -> Result<()> {
    setup::demand(setup::Scope::Containers)?;
    let image = image::default_output();
    image::image(&image::Args::to(image.clone()))?;
    let mut cargo = workspace::cargo("test");
    cargo.args(["--package", "netobs", "--test", CONTAINERS, "--no-run"]);
    let artifact = build::artifacts(&mut cargo)?
        .into_iter()
        .find(|artifact| is(artifact, CONTAINERS))
        .context("cargo built no container tests")?;
    let mut variable = OsString::from("NETOBS_IMAGE=");
    variable.push(&image);
    let tally = run_as_root(
        CONTAINERS,
        &artifact,
        &[variable, "NETOBS_REQUIRE=1".into()],
        args,
    )?;
    println!("{tally}");
    if tally.failed > 0 {
        bail!("{} failed; their output is above", tally.failed);
    }
    Ok(())
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

/// Runs the kernel tests. What a test cannot do on this machine is a failure here, never a silent
/// skip.
fn run_kernel(artifact: &Artifact, args: &Args) -> Result<Tally> {
    let name = &artifact.target.name;
    run_as_root(name, artifact, &["NETOBS_REQUIRE=1".into()], args)
}

/// Runs a test program as root with these variables, one test after the other; they take long, so
/// each line is shown as it comes.
fn run_as_root(
    name: &str,
    artifact: &Artifact,
    variables: &[OsString],
    args: &Args,
) -> Result<Tally> {
    let folder = folder(artifact)?;
    let mut program = command::as_root("env")?;
    let mut path = OsString::from("PATH=");
    path.push(workspace::path());
    let mut manifest = OsString::from("CARGO_MANIFEST_DIR=");
    manifest.push(folder);
    program
        .current_dir(folder)
        .arg(path)
        .arg(manifest)
        .args(variables);
    program.arg(&artifact.executable).arg("--test-threads=1");
    if args.containers {
        // The transcript is the point.
        program.arg("--nocapture");
    }
    program.args(&args.filter);
    program.stdin(Stdio::inherit());
    tally::loud(name, &mut program)
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
