//! `cargo xtask vm`: the kernel matrix by hand.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::fetch::Network;
use super::paths::Paths;
use super::{Payload, VmOptions, fetch_kernels, run, spec};

/// Boot Debian's kernels under emulation.
#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// List the kernels of the matrix.
    List,
    /// Find, download and unpack kernels.
    Fetch {
        #[command(flatten)]
        choice: Choice,
    },
    /// Run programs in a guest of each kernel, and print what came of it.
    Run(Box<RunArgs>),
}

/// Which kernels, and from where.
#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// Kernels, by name or suite; all when none is given.
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Use only what is cached.
    #[arg(long)]
    offline: bool,
    /// Look for newer kernels.
    #[arg(long, conflicts_with = "offline")]
    refresh: bool,
}

impl Choice {
    fn network(&self) -> Network {
        match (self.offline, self.refresh) {
            (true, _) => Network::Never,
            (false, true) => Network::Refresh,
            (false, false) => Network::WhenStale,
        }
    }
}

/// What to run, and how.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    choice: Choice,
    /// A program to run; its libraries are copied along.
    #[arg(long = "payload", value_name = "PATH", required = true)]
    payloads: Vec<PathBuf>,
    /// A variable of the payloads' environment.
    #[arg(
        long = "env",
        value_name = "NAME=VALUE",
        default_value = "NETOBS_REQUIRE=1"
    )]
    env: Vec<String>,
    /// A program of this machine that the payloads call, besides ip and nft.
    #[arg(long = "program", value_name = "NAME")]
    programs: Vec<String>,
    /// A file to copy into the guests.
    #[arg(long = "file", value_name = "HOST:GUEST")]
    files: Vec<String>,
    /// Run the payloads on this machine's own kernel too.
    #[arg(long)]
    host: bool,
    /// Longest time for one kernel.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Guests at the same time [default: as many as there are processors].
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,
    /// Memory of a guest, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 768)]
    memory: usize,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Show the payloads' output while it comes.
    #[arg(long, short)]
    verbose: bool,
    /// Arguments for every payload.
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

impl VmCommand {
    /// Does what was asked.
    ///
    /// # Errors
    /// When it cannot be done; a matrix that falls short is an exit code.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::List => {
                for spec in spec::SPECS {
                    let suites: Vec<_> = spec.suites.iter().map(|(_, suite)| *suite).collect();
                    println!(
                        "{:<6} {} ({})",
                        spec.name,
                        spec.aliases.join(" "),
                        suites.join(", ")
                    );
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Fetch { choice } => {
                for kernel in fetch_kernels(&Paths::find(), &choice.kernels, choice.network())? {
                    let version = kernel.version();
                    println!("{:<6} {} ({version})", kernel.name(), kernel.release);
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Run(args) => {
                let json = args.json;
                let report = run(&args.options()?)?;
                if json {
                    println!("{}", serde_json::to_string_pretty(&report)?);
                } else {
                    print!("{report}");
                }
                Ok(if report.passed {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                })
            }
        }
    }
}

impl RunArgs {
    fn options(self) -> anyhow::Result<VmOptions> {
        let pair = |text: &String, separator: char| {
            text.split_once(separator)
                .map(|(left, right)| (left.to_owned(), right.to_owned()))
                .with_context(|| format!("{text} has no {separator}"))
        };
        let env: Vec<_> = self
            .env
            .iter()
            .map(|text| pair(text, '='))
            .collect::<anyhow::Result<_>>()?;
        let files = self
            .files
            .iter()
            .map(|text| pair(text, ':').map(|(h, g)| (h.into(), g.into())));
        let network = self.choice.network();
        let mut options = VmOptions {
            kernels: self.choice.kernels,
            files: files.collect::<anyhow::Result<_>>()?,
            host: self.host,
            timeout: Duration::from_secs(self.timeout),
            memory_mib: self.memory,
            network,
            verbose: self.verbose,
            ..VmOptions::default()
        };
        options.programs.extend(self.programs);
        options.jobs = self.jobs.unwrap_or(options.jobs);
        options.payloads = self
            .payloads
            .into_iter()
            .map(|path| Payload {
                path,
                args: self.args.clone(),
                host_args: Vec::new(),
                guest_tests: None,
                env: env.clone(),
            })
            .collect();
        Ok(options)
    }
}
