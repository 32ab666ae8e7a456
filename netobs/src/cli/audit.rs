//! `netobs audit`.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::failure::UsageError;
use super::print;
use crate::audit::collect::{Collector, Options, Which, host_root};
use crate::audit::{
    self, Outcome, Report, Selection, Severity, Style, audit as judge, select_keys,
};

/// Longest window: a day.
const MAX_WINDOW: Duration = Duration::from_secs(86_400);
/// How often the progress line is drawn.
const TICK: Duration = Duration::from_millis(200);

/// Audit the TCP settings of every network namespace
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Exit codes:
  0  no finding at or above --fail-on, and everything could be read
  1  it could not be done, or not everything could be read (the report says partial)
  2  the command line is wrong
  3  findings at or above --fail-on

Without --window counters cannot be seen to move: what rests on them is advice.

Examples:
  netobs audit --window 10s
  netobs audit --netns 4711 --key 'tcp_fastopen*' --json
  netobs audit explain NETOBS-TCP-001"
)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    /// Watch counters for so long, such as 10s or 2m
    #[arg(long, value_name = "TIME", value_parser = window)]
    window: Option<Duration>,
    /// Namespaces to audit: host, all, a process id, or a path such as /run/netns/blue
    #[arg(long, value_name = "host|all|PID|PATH", default_value = "all", value_parser = which)]
    netns: Which,
    /// Only these settings; repeatable, may have a *
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// How to print the report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// The least severity that makes the exit code 3
    #[arg(long, value_name = "SEVERITY", default_value = "critical")]
    fail_on: Threshold,
    /// Show what passed and what does not apply as well
    #[arg(long)]
    all: bool,
    /// Root directory whose sysctl.d is read [default: that of process 1, else /]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Do not make a namespace for a moment to see this kernel's defaults; use the documented ones
    #[arg(long)]
    documented_defaults: bool,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Print the documentation of a rule
    Explain {
        /// Its id, such as NETOBS-TCP-001 or 1
        id: String,
        /// Print an object
        #[arg(long)]
        json: bool,
    },
    /// List the rules
    List {
        /// List the settings that are read instead
        #[arg(long)]
        keys: bool,
        /// Print an array of objects
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For readers
    Text,
    /// One object, docs/audit-report.schema.json
    Json,
    /// JUnit XML
    Junit,
    /// SARIF 2.1.0: findings about persistent files only
    Sarif,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Threshold {
    /// Any finding
    Info,
    /// Warnings and critical findings
    Warning,
    /// Critical findings
    Critical,
}

impl From<Threshold> for Severity {
    fn from(threshold: Threshold) -> Self {
        match threshold {
            Threshold::Info => Self::Info,
            Threshold::Warning => Self::Warning,
            Threshold::Critical => Self::Critical,
        }
    }
}

impl AuditArgs {
    /// Audits, or explains, and says how it went.
    ///
    /// # Errors
    /// When the machine cannot be read at all, a rule or setting is unknown, or stdout fails.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        match &self.command {
            Some(AuditCommand::Explain { id, json: false }) => {
                let text = audit::explain(id).map_err(|error| usage(&error))?;
                print(text.as_bytes())?;
            }
            Some(AuditCommand::Explain { id, json: true }) => {
                print_json(&audit::rule_page(id).map_err(|error| usage(&error))?)?;
            }
            Some(AuditCommand::List { keys, json }) => match (keys, json) {
                (false, false) => print(audit::list().as_bytes())?,
                (true, false) => print(audit::list_keys().as_bytes())?,
                (false, true) => print_json(&audit::rule_pages())?,
                (true, true) => print_json(&audit::key_pages())?,
            },
            None => return self.audit(),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn audit(&self) -> anyhow::Result<ExitCode> {
        let mut selection = Selection::default();
        for pattern in &self.key {
            selection
                .keys
                .extend(select_keys(pattern).map_err(|error| usage(&error))?);
        }
        let mut options = Options {
            which: self.netns.clone(),
            ..Options::default()
        };
        options.fresh_defaults = !self.documented_defaults;
        options.root = match &self.root {
            Some(root) => {
                // Without it nothing would be read, and so nothing found.
                std::fs::read_dir(root)
                    .with_context(|| format!("failed to read the directory {}", root.display()))?;
                root.clone()
            }
            None => host_root(&options.proc_root),
        };
        let collector = Collector::new(options);
        let baseline = match self.window {
            Some(window) => {
                let baseline = collector.baseline()?;
                wait(window, io::stderr().is_terminal());
                Some(baseline)
            }
            None => None,
        };
        let machine = collector.snapshot(baseline.as_ref())?;
        let report = judge(&machine, &selection);
        print(&self.render(&report)?)?;
        Ok(match report.outcome(self.fail_on.into()) {
            Outcome::Fine => ExitCode::SUCCESS,
            Outcome::Partial => ExitCode::from(1),
            Outcome::Findings => ExitCode::from(3),
        })
    }

    fn render(&self, report: &Report) -> anyhow::Result<Vec<u8>> {
        let format = if self.json { Format::Json } else { self.format };
        Ok(match format {
            Format::Text => {
                let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                let colour = io::stdout().is_terminal() && !unwanted;
                let mut out = Vec::new();
                audit::write_text(
                    report,
                    Style {
                        colour,
                        all: self.all,
                    },
                    &mut out,
                )?;
                out
            }
            Format::Json => report.to_json()?.into_bytes(),
            Format::Junit => audit::write_junit(report, self.fail_on.into()).into_bytes(),
            Format::Sarif => audit::write_sarif(report)?.into_bytes(),
        })
    }
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(print(&text)?)
}

/// An unknown rule or setting is the command line's fault.
fn usage(error: &audit::AuditError) -> UsageError {
    UsageError(error.to_string())
}

/// Sleeps for the window; on a terminal, says how much of it is left.
fn wait(window: Duration, terminal: bool) {
    let end = Instant::now() + window;
    let mut stderr = io::stderr();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        if terminal {
            // A progress line that cannot be drawn is no loss.
            let _ = write!(
                stderr,
                "\rwatching counters: {:>4} s left ",
                left.as_secs() + 1
            );
            let _ = stderr.flush();
        }
        std::thread::sleep(if terminal { left.min(TICK) } else { left });
    }
    if terminal {
        let _ = write!(stderr, "\r\u{1b}[K");
        let _ = stderr.flush();
    }
}

/// A whole number with a unit: `500ms`, `10s`, `2m`, `1h`; seconds without one.
fn window(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits
        .parse()
        .map_err(|_| "expected a time such as 10s".to_owned())?;
    let millis = match unit {
        "ms" => Some(1),
        "" | "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let millis = millis
        .and_then(|m: u64| number.checked_mul(m))
        .ok_or_else(|| "expected a time in ms, s, m or h".to_owned())?;
    let window = Duration::from_millis(millis);
    if window.is_zero() || window > MAX_WINDOW {
        return Err("expected a time above 0 and of at most a day".to_owned());
    }
    Ok(window)
}

fn which(text: &str) -> Result<Which, String> {
    match text {
        "host" => Ok(Which::Host),
        "all" => Ok(Which::All),
        "" => Err("expected host, all, a process id or a path".to_owned()),
        _ if text.bytes().all(|b| b.is_ascii_digit()) => text
            .parse()
            .map(Which::Process)
            .map_err(|_| "no such process id".to_owned()),
        _ if text.contains('/') => Ok(Which::Mount(PathBuf::from(text))),
        _ => Err("expected host, all, a process id or a path with a '/'".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::{Which, which, window};

    #[test]
    fn windows_and_namespaces_are_read() {
        for (text, want) in [
            ("10s", Some(10_000)),
            ("10", Some(10_000)),
            ("500ms", Some(500)),
            ("2m", Some(120_000)),
            ("24h", Some(86_400_000)),
            ("25h", None),
            ("0s", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("1.5s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(
                window(text).ok(),
                want.map(Duration::from_millis),
                "{text:?}"
            );
        }
        assert_eq!(which("host"), Ok(Which::Host));
        assert_eq!(which("4711"), Ok(Which::Process(4711)));
        assert_eq!(
            which("/run/netns/a"),
            Ok(Which::Mount(PathBuf::from("/run/netns/a")))
        );
        for bad in ["", "blue", "99999999999"] {
            assert!(which(bad).is_err(), "{bad:?}");
        }
    }
}
