//! `cargo xtask lint`: everything that can be said about the sources without running them.

use anyhow::{Result, bail};

use crate::fmt;
use crate::{command, setup, workspace};

mod deny;
mod evidence;
mod rules;
mod source;

/// Options of `lint`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the check whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// A check's name, and the check.
type Check = (&'static str, fn() -> Result<()>);

/// Runs every check, also after one has failed, and names those that did.
pub(crate) fn lint(args: &Args) -> Result<()> {
    setup::ensure(setup::Scope::Build)?;
    let checks: [Check; 6] = [
        ("format", || fmt::fmt(&fmt::Args { check: true })),
        ("house rules", rules::check),
        ("threat model", evidence::check),
        ("clippy", clippy),
        ("deployment", crate::deploy::check),
        ("licences and dependencies", deny::check),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if args
            .filter
            .as_ref()
            .is_some_and(|text| !name.contains(text))
        {
            continue;
        }
        match check() {
            Ok(()) => println!("{name}: ok"),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("not clean: {}", failed.join(", "));
    }
    Ok(())
}

/// Clippy over what runs on the host; the kernel side's own warnings come from its build.
fn clippy() -> Result<()> {
    let mut cargo = workspace::cargo("clippy");
    cargo.args([
        "--quiet",
        "--workspace",
        "--exclude",
        "netobs-ebpf",
        "--all-targets",
    ]);
    command::run(cargo.args(["--", "-D", "warnings"]))
}
