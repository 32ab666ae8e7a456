//! `netobs diagnose`.

mod old;

use std::{
    io::{self, IsTerminal, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{GlobalArgs, past::PastArgs, print, unless_off};
use crate::{
    agent::{Agent, Watch},
    config::{
        Config, Log, LogLevel, MAX_TARGETS, Overrides, PathProbes, ProbeTarget, parse_duration,
    },
    diagnose::{self, Diagnosis, Evidence},
    logging,
    path::{Plan, Slow, Target},
    probes::{ACCEPT_CALLS, LOOKUPS},
    sys::signals::EndSignals,
};

/// Watch for a while, then say in plain words what is wrong, for whom, and what to do
///
/// Looks at accept and SYN queues, outgoing connections, retransmissions, resets, name lookups, time
/// stamps, connection tracking tables and the settings of every network namespace, and tells findings
/// with their evidence, the chain of causes and commands that help; then what is well, and what this
/// kernel cannot show. With --target it also asks itself what the user asks, and joins what came of it
/// with what the kernel saw. With --from or --agent it judges what was recorded instead: events of what
/// went wrong, without settings and shares.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct DiagnoseArgs {
    /// How long to watch, longer only until each --target was measured once; Ctrl-C ends it early, with
    /// what was seen until then
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, conflicts_with_all = ["from", "agent"])]
    duration: Duration,
    #[command(flatten)]
    past: PastArgs,
    /// Also measure this path meanwhile, every second: URL, HOST:PORT, tls:HOST:PORT or dns:NAME, as for
    /// `netobs probe`
    #[arg(long = "target", value_name = "TARGET", conflicts_with_all = ["from", "agent"])]
    targets: Vec<Target>,
    /// How to print the result
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Only findings of this network namespace (inode number), and those that concern all
    #[arg(long, value_name = "NUMBER")]
    netns: Option<u32>,
    /// Only findings of the container whose id begins so
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// Probe not to attach. May be repeated
    #[arg(long = "no-probe", value_name = "NAME", conflicts_with_all = ["from", "agent"])]
    disable: Vec<String>,
}

/// Forms of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal.
    #[default]
    Text,
    /// One object; see docs/diagnosis.schema.json.
    Json,
    /// To paste into an incident report.
    Markdown,
}

const AFTER_HELP: &str = "\
Examples:
  netobs diagnose
  netobs diagnose --target https://api.example/health --target dns:db.example
  netobs diagnose --duration 2m --format markdown > incident.md
  netobs diagnose --from /var/lib/netobs/events --since 14:25 --until 14:35
      What was wrong around half past two.
  netobs diagnose --agent http://127.0.0.1:10977 --since -5m
      What a running agent has seen in the last five minutes.
  netobs diagnose --json | jq '.findings[] | select(.severity == \"critical\")'

Exit codes:
  0  nothing wrong was seen
  1  it could not be looked
  2  the command line is wrong
  3  there are findings";

/// From one measurement of a path to the next, and how long one may take. An answer that takes longer
/// than that is none for those who wait for it.
const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// Drawn over and over on a terminal.
const WIDTH: usize = 30;

impl DiagnoseArgs {
    /// Watches, judges, prints.
    ///
    /// # Errors
    /// When nothing can be observed, or stdout cannot be written.
    pub fn run(&self, globals: &GlobalArgs, known_probes: &[&str]) -> anyhow::Result<ExitCode> {
        logging::init(Log {
            level: globals.log_level.unwrap_or(LogLevel::Error),
            format: globals.log_format.unwrap_or_default(),
        })?;
        let range = self.past.range()?;
        let evidence = match (&self.past.from, &self.past.agent) {
            (Some(path), _) => old::of_files(path, range)?,
            (None, Some(url)) => old::of_agent(&self.past.request(url, range)?, range)?,
            (None, None) => self.watch(known_probes)?,
        };
        let mut diagnosis = diagnose::diagnose(&evidence);
        self.filter(&mut diagnosis);
        let text = match self.format {
            _ if self.json => json(&diagnosis)?,
            Format::Json => json(&diagnosis)?,
            Format::Markdown => diagnose::markdown(&diagnosis),
            Format::Text => {
                let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                diagnose::text(&diagnosis, io::stdout().is_terminal() && !plain)
            }
        };
        print(text.as_bytes())?;
        Ok(if diagnosis.findings.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(3)
        })
    }

    fn watch(&self, known_probes: &[&str]) -> anyhow::Result<Evidence> {
        let flags = Overrides {
            // Off in `netobs run` for what they cost; for half a minute it does not matter.
            enable: unless_off(&[LOOKUPS, ACCEPT_CALLS], &self.disable),
            disable: self.disable.clone(),
            recorder_size: Some(0),
            ..Overrides::default()
        };
        let config = Config::resolve(None, flags, known_probes)?;
        let signals = EndSignals::take()?;
        let stdout = io::stdout();
        let watch = Watch {
            signals: signals.as_fd(),
            output: stdout.as_fd(),
            duration: Some(self.duration),
        };
        let draws = io::stderr().is_terminal();
        let progress = |passed: Duration| {
            if draws {
                draw(passed, self.duration);
            }
        };
        let witnessed = Agent::start(&config)?.witness(self.paths(), &watch, progress);
        if draws {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        witnessed.context("failed to wait for events")
    }

    /// The targets, each named as it was written.
    fn paths(&self) -> PathProbes {
        let mut targets: Vec<ProbeTarget> = Vec::new();
        for target in self.targets.iter().take(MAX_TARGETS) {
            let mut plan = Plan::new(target.clone());
            plan.timeouts.total = PATIENCE.min(self.duration);
            if !targets.iter().any(|it| it.plan.name == plan.name) {
                targets.push(ProbeTarget {
                    plan,
                    interval: EVERY,
                    jitter: Duration::ZERO,
                    slow: Slow::default(),
                });
            }
        }
        PathProbes {
            targets,
            ..PathProbes::default()
        }
    }

    fn filter(&self, diagnosis: &mut Diagnosis) {
        diagnosis.findings.retain(|finding| {
            let here = self
                .netns
                .is_none_or(|netns| finding.netns.is_none_or(|of| of == netns));
            let of = |id: &String| finding.container_id.starts_with(id.as_str());
            here && self.container.as_ref().is_none_or(of)
        });
    }
}

fn json(diagnosis: &Diagnosis) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(diagnosis)?;
    text.push('\n');
    Ok(text)
}

fn draw(passed: Duration, duration: Duration) {
    let share = (passed.as_secs_f64() / duration.as_secs_f64().max(0.001)).min(1.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a width"
    )]
    let full = (share * WIDTH as f64) as usize;
    let bar: String = (0..WIDTH)
        .map(|at| if at < full { '#' } else { '.' })
        .collect();
    // A progress line that cannot be drawn is no loss.
    let _ = write!(
        io::stderr(),
        "\rwatching [{bar}] {:.0} of {:.0} s; Ctrl-C ends it early",
        passed.as_secs_f64(),
        duration.as_secs_f64()
    );
}
