//! netobs's build, test and set-up tasks.

mod vm;

use std::process::ExitCode;

use clap::Parser;

/// netobs's build, test and set-up tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Boot Debian's kernels under emulation.
    #[command(subcommand)]
    Vm(vm::VmCommand),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Vm(command) => command.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
