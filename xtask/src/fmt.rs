//! `cargo xtask fmt`.

use anyhow::{Context, Result};

use crate::{command, workspace};

/// Options of `fmt`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail if something would change
    #[arg(long)]
    pub(crate) check: bool,
}

/// Formats the workspace, the kernel side included.
pub(crate) fn fmt(args: &Args) -> Result<()> {
    let mut cargo = workspace::cargo("fmt");
    cargo.arg("--all");
    if args.check {
        cargo.arg("--check");
        return command::run(&mut cargo).context("the format is off: `cargo xtask fmt` repairs it");
    }
    command::run(&mut cargo)
}
