//! What the user typed, one file per subcommand. What it means is for [`crate::config`].
//!
//! A new subcommand is a file with its `Args`, a line in [`Command`] and an arm in `main`.

pub mod audit;
pub mod check;
pub mod completions;
pub mod diagnose;
pub mod environment;
pub mod failure;
pub mod man;
mod past;
pub mod probe;
pub mod run;
pub mod top;
pub mod trace;

use std::{
    io::{self, Write},
    sync::LazyLock,
};

use clap::{Args, Parser, Subcommand};

use crate::config::{LogFormat, LogLevel};

/// The version, and the git revision where the build was told one in `NETOBS_REVISION`.
#[must_use]
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let version = env!("CARGO_PKG_VERSION");
        match option_env!("NETOBS_REVISION") {
            Some(revision) => format!("{version} ({revision})"),
            None => version.to_owned(),
        }
    });
    &VERSION
}

/// A kernel-level TCP observer for Linux.
#[derive(Debug, Parser)]
#[command(
    name = "netobs",
    version = version(),
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = AFTER_HELP
)]
pub struct Cli {
    /// Flags of every subcommand.
    #[command(flatten)]
    pub globals: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  fine
  1  it could not be done
  2  the command line or the configuration is wrong
  3  there are findings (audit, diagnose), or not all was as expected (probe)

Start with `netobs check`, then `netobs run --help`.";

/// Of probes that are attached on request only, those that a command asks for by itself: all that the user
/// has not switched off.
fn unless_off(probes: &[&str], off: &[String]) -> Vec<String> {
    let probes = probes.iter().map(|probe| (*probe).to_owned());
    probes.filter(|probe| !off.contains(probe)).collect()
}

/// Flags of every subcommand.
#[derive(Clone, Debug, Default, Args)]
pub struct GlobalArgs {
    /// The least important messages to write to stderr [default: info]
    #[arg(long, global = true, help_heading = "Messages", value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// How to write messages [default: text]
    #[arg(long, global = true, help_heading = "Messages", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "the help text of each stands with its `Args`")]
pub enum Command {
    Run(run::RunArgs),
    Trace(trace::TraceArgs),
    Audit(audit::AuditArgs),
    Check(check::CheckArgs),
    Diagnose(diagnose::DiagnoseArgs),
    Top(top::TopArgs),
    Probe(probe::ProbeArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Writes a finished text to stdout. A reader that has seen enough is no error.
fn print(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
