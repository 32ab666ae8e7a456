//! The kernel tests in a guest of each kernel: `cargo xtask test --vm`.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{KERNEL, is, tally::Tally};
use crate::build::{self, Artifact};
use crate::{setup, vm, workspace};

/// Emulation is slow, and the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(1200);
/// No test takes so long without a word: what it waits for, it waits for with less patience.
const SILENCE: Duration = Duration::from_secs(240);

/// Tests that a guest is spared, by a part of their path, and what they judge: it is the same on every
/// kernel, and takes long where every instruction is emulated. The machine's own column has them all.
const SPARED: &[(&str, &[&str])] = &[
    ("so marked where it stands", &["::host_only::"]),
    (
        "which settings there are, and how often they are read",
        &["audit::"],
    ),
    (
        "rules over books that other tests hold against the kernel; one of them stays",
        &[
            "diagnose::a_busy_and",
            "diagnose::faults::",
            "diagnose::limits::a_host_to_which",
            "diagnose::limits::connections_that",
            "diagnose::limits::handshakes_that",
            "diagnose::lookups::",
            "diagnose::past::",
            "diagnose::programs::",
            "diagnose::refused_connects",
            "diagnose::settings::",
        ],
    ),
    (
        "what the agent keeps: its memory and threads",
        &[
            "churn::a_storm_of",
            "churn::listeners_in",
            "trace::a_burst_while",
        ],
    ),
    (
        "flags that leave probes out",
        &["missing::a_tracepoint_that"],
    ),
    (
        "how messages are read; that they are seen, and what is lost, stays",
        &[
            "dns::hostile_messages",
            "dns::lookups_over_a_link",
            "dns::other_traffic",
            "dns::python_and",
            "dns::second_and",
            "dns::what_is_not_answered",
            "dns::without_being_asked",
        ],
    ),
    ("the HTTP server and the log", &["surface::"]),
    (
        "signals, pipes and files",
        &[
            "trace::an_output_that",
            "trace::it_ends_when",
            "trace::what_was_recorded",
        ],
    ),
];

/// The parts of paths in [`SPARED`].
pub(super) fn spared() -> impl Iterator<Item = &'static str> {
    SPARED.iter().flat_map(|(_, paths)| *paths).copied()
}

/// Where the agent is in a guest.
const GUEST_BINARY: &str = "/netobs";

/// `test --vm`: builds agent and tests, runs them in the guests and on this machine, and prints the
/// table.
pub(super) fn test(kernels: &[String], filter: Option<&str>) -> Result<()> {
    setup::ensure(setup::Scope::Test)?;
    let mut cargo = workspace::cargo("test");
    cargo.args(["--package", "netobs", "--test", KERNEL, "--no-run"]);
    let tests = build::artifacts(&mut cargo)?
        .into_iter()
        .find(|artifact| is(artifact, KERNEL))
        .context("cargo built no kernel tests")?;
    let tally = run(&tests, kernels, filter)?;
    println!("{tally}");
    if tally.failed > 0 {
        bail!("a kernel falls short; its output is in target/vm/run");
    }
    Ok(())
}

/// Runs the kernel tests on this machine and in a guest of each of these kernels (all, if none is
/// named), and prints the table.
///
/// # Errors
/// When they cannot be run; a test that fails is in the tally.
pub(super) fn run(tests: &Artifact, kernels: &[String], filter: Option<&str>) -> Result<Tally> {
    setup::ensure(setup::Scope::Vm)?;
    // Optimised: in a guest, every instruction is emulated.
    let agent = build::agent_for_guests()?;
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let report = vm::run(&vm::VmOptions {
        kernels: kernels.to_vec(),
        payloads: vec![vm::Payload {
            path: tests.executable.clone(),
            args: vec!["--test-threads=1".to_owned()],
            host_args: filter.map(str::to_owned).into_iter().collect(),
            guest_tests: Some(for_guests(tests, filter)?),
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
        silence: SILENCE,
        ..vm::VmOptions::default()
    })?;
    println!("{report}");
    let mut tally = Tally::default();
    for kernel in &report.kernels {
        tally.add(kernel.into());
    }
    Ok(tally)
}

/// The names of the tests that guests run.
///
/// # Errors
/// When the tests do not list themselves, or [`SPARED`] has something that no test is called.
fn for_guests(tests: &Artifact, filter: Option<&str>) -> Result<Vec<String>> {
    let output = Command::new(&tests.executable)
        .args(["--list", "--format", "terse"])
        .stdin(Stdio::null())
        .output()
        .context("failed to list the kernel tests")?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let names: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    let mut unknown = spared().filter(|path| !names.iter().any(|name| name.contains(path)));
    if let Some(path) = unknown.next() {
        bail!("no kernel test is called {path}, which guests are to be spared");
    }
    Ok(names
        .into_iter()
        .filter(|name| filter.is_none_or(|filter| name.contains(filter)))
        .filter(|name| !spared().any(|path| name.contains(path)))
        .map(str::to_owned)
        .collect())
}
