//! netobs's build, test and set-up tasks: `cargo xtask --help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod build;
mod command;
mod cross;
mod deb;
mod deploy;
mod dist;
mod fmt;
mod image;
mod lint;
mod run;
mod setup;
mod test;
mod time;
#[path = "../../netobs/build/toolchain.rs"]
mod toolchain;
mod vm;
mod workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "netobs's tasks",
    version
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need and this machine lacks
    Setup(setup::Args),
    /// Build the agent
    Build(build::Args),
    /// Make the container image, without a registry
    Image(image::Args),
    /// Make the Debian package
    Deb(deb::Args),
    /// Make everything that a release has, in one folder
    Dist(dist::Args),
    /// Build the agent and run it as root
    Run(run::Args),
    /// Run every test, those of the kernel side as root
    Test(test::Args),
    /// Boot Debian's kernels under emulation
    #[command(subcommand)]
    Vm(vm::VmCommand),
    /// Measure the agent and its peers, as root
    Bench(bench::Args),
    /// Hold sockets for a benchmark: its child, not for people
    #[command(hide = true)]
    BenchHold(bench::HoldArgs),
    /// Format the sources
    Fmt(fmt::Args),
    /// Check format, lints, house rules, deployment files, licences and dependencies
    Lint(lint::Args),
}

fn main() -> ExitCode {
    match run_task(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_task(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Setup(args) => setup::setup(&args)?,
        Task::Build(args) => build::build(&args)?,
        Task::Image(args) => image::image(&args)?,
        Task::Deb(args) => deb::deb(&args)?,
        Task::Dist(args) => dist::dist(&args)?,
        Task::Run(args) => run::run(&args)?,
        Task::Test(args) => test::test(&args)?,
        Task::Vm(command) => return command.run(),
        Task::Bench(args) => bench::bench(&args)?,
        Task::BenchHold(args) => bench::hold(&args)?,
        Task::Fmt(args) => fmt::fmt(&args)?,
        Task::Lint(args) => lint::lint(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}
