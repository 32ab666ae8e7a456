//! The kernel tests in a guest of each kernel: `cargo xtask test --vm`.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{KERNEL, is, tally::Tally};
use crate::{build, setup, vm, workspace};

/// Emulation is slow, and the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(900);

/// In the path of tests that a guest is spared, see `netobs/tests/kernel/main.rs`.
const HOST_ONLY: &str = "host_only::";

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
            guest_args: ["--skip", HOST_ONLY].map(str::to_owned).to_vec(),
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
