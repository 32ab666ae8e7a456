//! `cargo xtask run`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::{build, command};

/// Options of `run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run a build without optimisations
    #[arg(long)]
    debug: bool,
    /// What netobs is given; `run` when there is nothing
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Builds the agent, then becomes it, so that signals and the exit code are its own.
pub(crate) fn run(args: &Args) -> Result<()> {
    let binary = build::agent(&build::Args {
        release: !args.debug,
        linked_in: false,
        target: None,
    })?;
    let mut netobs = command::as_root(&binary)?;
    if args.args.is_empty() {
        netobs.arg("run");
    }
    // Variables of the build mean nothing to the agent.
    for name in [
        "CARGO",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "RUSTUP_TOOLCHAIN",
    ] {
        netobs.env_remove(name);
    }
    let error = netobs.args(&args.args).exec();
    Err(error).with_context(|| format!("failed to start {}", binary.display()))
}
