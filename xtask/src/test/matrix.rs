//! The kernel tests in a guest of each kernel: `cargo xtask test --vm`.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{KERNEL, is, tally::Tally};
use crate::{build, setup, vm, workspace};

/// Emulation is slow, and the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(900);

/// In the path of tests that a guest is spared, and why: what they judge is the same on every kernel,
/// and takes long where every instruction is emulated. The machine's own column has them all.
const SPARED: [(&str, &str); 11] = [
    ("::host_only::", "so marked where it stands"),
    (
        "audit::",
        "which settings there are, and how often they are read",
    ),
    (
        "diagnose::faults::",
        "rules over books that other tests hold against the kernel",
    ),
    ("diagnose::lookups::", "as those"),
    ("diagnose::past::", "as those"),
    ("diagnose::programs::", "as those"),
    ("diagnose::settings::", "as those"),
    ("surface::", "the HTTP server and the log"),
    ("trace::it_ends_when", "signals and pipes"),
    ("trace::an_output_that", "signals and pipes"),
    ("trace::what_was_recorded", "files"),
];

/// The arguments by which the tests are told.
pub(super) fn spared() -> impl Iterator<Item = &'static str> {
    SPARED.iter().flat_map(|(path, _)| ["--skip", path])
}

/// Where the agent is in a guest.
const GUEST_BINARY: &str = "/netobs";

/// Builds agent and tests, runs them in the guests and on this machine, and prints the table.
pub(super) fn test(kernels: &[String], filter: Option<&str>) -> Result<()> {
    setup::ensure(setup::Scope::Test)?;
    setup::ensure(setup::Scope::Vm)?;
    // Optimised: in a guest, every instruction is emulated.
    let agent = build::agent_for_guests()?;
    let mut cargo = workspace::cargo("test");
    cargo.args(["--package", "netobs", "--test", KERNEL, "--no-run"]);
    let tests = build::artifacts(&mut cargo)?
        .into_iter()
        .find(|artifact| is(artifact, KERNEL))
        .context("cargo built no kernel tests")?;

    let mut args = vec!["--test-threads=1".to_owned()];
    args.extend(filter.map(str::to_owned));
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let report = vm::run(&vm::VmOptions {
        kernels: kernels.to_vec(),
        payloads: vec![vm::Payload {
            path: tests.executable,
            args,
            guest_args: spared().map(str::to_owned).collect(),
            env: vec![
                variable("NETOBS_REQUIRE", "1"),
                variable("RUST_BACKTRACE", "0"),
                // On this machine, where there is no such file, the tests take the binary that was
                // built with them.
                variable("NETOBS_BIN", GUEST_BINARY),
            ],
        }],
        files: vec![(agent, GUEST_BINARY.into())],
        host: true,
        timeout: TIMEOUT,
        ..vm::VmOptions::default()
    })?;
    println!("{report}");
    let mut tally = Tally::default();
    for kernel in &report.kernels {
        tally.add(kernel.into());
    }
    println!("{tally}");
    if !report.passed {
        bail!("a kernel falls short; its output is in target/vm/run");
    }
    Ok(())
}
