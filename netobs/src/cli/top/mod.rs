//! `netobs top`.

mod handover;
mod lines;
mod messages;
mod screen;
mod show;
mod source;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::anyhow;
use clap::Args;

use super::{GlobalArgs, failure::WithHint};
use crate::{
    config::{Log, LogLevel, parse_duration},
    logging,
    sys::signals::EndSignals,
    top::view::{Look, Symbols},
};

/// Watch listeners, retransmissions, connects, resets and findings on a terminal
///
/// Shows who listens with queue, drops and the time to accept(), whose segments are sent again, who
/// connects and fails, who resets, and what netobs diagnose would say, as sheets
/// that can be sorted and filtered. ? shows the keys.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct TopArgs {
    /// How often to look, at least 200ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Begin with this filter, as typed after /
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,
    /// Write one JSON object a look instead, also where there is no terminal
    #[arg(long, conflicts_with = "filter")]
    json: bool,
    /// With --json: end after so many
    #[arg(long, requires = "json", value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Probe not to attach. May be repeated
    #[arg(long = "no-probe", value_name = "NAME")]
    disable: Vec<String>,
}

const AFTER_HELP: &str = "\
Needs what `netobs run` needs.

Examples:
  netobs top
  netobs top --filter 'process:nginx port:443'
  netobs top --json --count 2 --interval 10s | jq '.listeners[] | select(.drops > 0)'

Exit codes:
  0  ended by q, Ctrl-C, SIGTERM, a terminal that was closed, or --count
  1  it could not be done
  2  the command line is wrong";

/// More often, a look would show little and cost much.
const LEAST_INTERVAL: Duration = Duration::from_millis(200);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    if interval < LEAST_INTERVAL {
        return Err("expected at least 200ms".to_owned());
    }
    Ok(interval)
}

impl TopArgs {
    /// Shows until something ends it.
    ///
    /// # Errors
    /// When the command line is wrong, there is no terminal, or nothing can be observed.
    pub fn run(&self, globals: &GlobalArgs, known_probes: &[&str]) -> anyhow::Result<ExitCode> {
        let log = Log {
            level: globals.log_level.unwrap_or(LogLevel::Warn),
            format: globals.log_format.unwrap_or_default(),
        };
        if self.json {
            logging::init(log)?;
            let signals = EndSignals::take()?;
            lines::run(self, &signals, known_probes)?;
            return Ok(ExitCode::SUCCESS);
        }
        check_terminal()?;
        let messages = messages::begin(log)?;
        let signals = EndSignals::take_with_hangup()?;
        let shown = show::run(self, signals, known_probes);
        // The terminal is as it was by now.
        messages.tell();
        shown?;
        Ok(ExitCode::SUCCESS)
    }

    fn look(&self) -> Look {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(variable);
        Look {
            colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            symbols: Symbols::of(locale.as_deref()),
            source: "this machine".to_owned(),
            clock: String::new(),
        }
    }
}

/// Whether there is a terminal to draw on and to take keys from.
fn check_terminal() -> anyhow::Result<()> {
    let hint =
        "netobs trace and netobs diagnose write to files and pipes, as does netobs top --json";
    let refused = |what: &'static str| Err(WithHint::new(anyhow!(what), hint).into());
    if !io::stdout().is_terminal() {
        return refused("stdout is no terminal to draw on");
    }
    if !io::stdin().is_terminal() {
        return refused("stdin is no terminal to take keys from");
    }
    let kind = std::env::var("TERM").unwrap_or_default();
    if kind.is_empty() || kind == "dumb" {
        return refused("this terminal cannot place text (TERM is unset or dumb)");
    }
    Ok(())
}
