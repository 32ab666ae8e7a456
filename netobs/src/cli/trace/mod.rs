//! `netobs trace`.

mod live;
mod old;

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use clap::{Args, ValueEnum, builder::PossibleValuesParser};
use jiff::tz::TimeZone;
use netobs_common::event::EventKind;

use super::{GlobalArgs, failure::UsageError, past::PastArgs};
use crate::{
    config::{Log, LogFormat, LogLevel, parse_age},
    logging,
    sys::{cgroup::Workloads, netns::NetnsId, signals::EndSignals},
    trace::{self, Columns, Filter, Lines, Outlet, Style, Tally},
};

/// Show events as they happen, or as they were recorded, one line each
///
/// Without --from and --agent it attaches its own probes, like `netobs run`. On a terminal a line is
/// a row of columns, elsewhere a JSON object (docs/trace.md). It never holds the kernel up: what an
/// output that is too slow does not take is counted, and said at the end.
#[derive(Clone, Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct TraceArgs {
    /// Kinds of events to show [default: all, but name lookups as they happen only when dns is named:
    /// watching them costs on every packet]
    #[arg(value_name = "EVENT", value_parser = PossibleValuesParser::new(kinds()))]
    events: Vec<String>,
    /// Only events with this local or remote port
    #[arg(long, help_heading = "Filters", value_name = "PORT")]
    port: Option<u16>,
    /// Only events whose socket belongs to this process
    #[arg(long, help_heading = "Filters", value_name = "PID")]
    pid: Option<u32>,
    /// Only events in this network namespace: its inode number, the number of a process in it, its
    /// path, or its name in /run/netns
    #[arg(long, help_heading = "Filters", value_name = "NETNS")]
    netns: Option<String>,
    /// Only events whose socket belongs to this container: how its id begins
    #[arg(long, help_heading = "Filters", value_name = "ID")]
    container: Option<String>,
    /// End after this time, such as 30s or 5m
    #[arg(long, help_heading = "Ends", value_name = "TIME", value_parser = parse_age)]
    duration: Option<Duration>,
    /// End after this many events were shown
    #[arg(long, help_heading = "Ends", value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    past: PastArgs,
    /// Columns or JSON lines [default: columns on a terminal, else JSON lines]
    #[arg(long, value_name = "FORMAT")]
    format: Option<TraceFormat>,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Probe not to attach. May be repeated
    #[arg(long = "no-probe", value_name = "NAME")]
    disable: Vec<String>,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TraceFormat {
    /// Aligned columns.
    Text,
    /// One JSON object a line.
    Json,
}

const AFTER_HELP: &str = "\
Needs what `netobs run` needs, except with --from and --agent.

Examples:
  netobs trace
      Everything, until Ctrl-C.
  netobs trace listen-drop --port 443 --duration 30s
      Who is turned away at port 443, for half a minute.
  netobs trace --json | jq 'select(.owner.process == \"nginx\")'
  netobs trace --from /var/lib/netobs/events --since 14:25 --until 14:35
      What happened around half past two.
  netobs trace --agent http://127.0.0.1:10977 --since -5m
      The last five minutes of a running agent, also without --recorder.path.

Exit codes:
  0  ended by Ctrl-C, SIGTERM, a limit, or a reader that has seen enough
  1  it could not be done
  2  the command line is wrong";

fn kinds() -> Vec<&'static str> {
    EventKind::ALL.iter().map(|kind| kind.name()).collect()
}

impl TraceArgs {
    /// Shows events until something ends it.
    ///
    /// # Errors
    /// When the command line is wrong, nothing can be attached or read, or stdout refuses.
    pub fn run(&self, globals: &GlobalArgs, known_probes: &[&str]) -> anyhow::Result<ExitCode> {
        // The log is for what goes wrong: the events are what was asked for.
        logging::init(Log {
            level: globals.log_level.unwrap_or(LogLevel::Warn),
            format: globals.log_format.unwrap_or(LogFormat::Text),
        })?;
        let filter = self.filter()?;
        let range = self.past.range()?;
        let signals = EndSignals::take()?;
        match (&self.past.from, &self.past.agent) {
            (None, None) => live::run(self, filter, &signals, known_probes)?,
            (Some(path), _) => old::run(self, filter, &signals, old::Source::Files(path, range))?,
            (None, Some(url)) => {
                let request = self.past.request(url, range)?;
                old::run(self, filter, &signals, old::Source::Agent(request))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn filter(&self) -> Result<Filter, UsageError> {
        let wanted = |kind: &&EventKind| self.events.iter().any(|name| name == kind.name());
        Ok(Filter {
            kinds: EventKind::ALL.iter().filter(wanted).copied().collect(),
            port: self.port,
            pid: self.pid,
            netns: self.netns.as_deref().map(netns).transpose()?,
            container: self.container.clone(),
        })
    }

    fn outlet(&self, dates: bool) -> Outlet<io::Stdout> {
        let terminal = io::stdout().is_terminal();
        let json = self.json
            || match self.format {
                Some(format) => format == TraceFormat::Json,
                None => !terminal,
            };
        let format = if json {
            trace::Format::Json
        } else {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let width = terminal_size::terminal_size_of(io::stdout());
            trace::Format::Columns(Columns::new(Style {
                width: width.map(|(width, _)| width.0.into()),
                colour: terminal && !plain,
                dates,
            }))
        };
        Outlet::new(io::stdout(), format)
    }
}

/// Lines with times of the local zone, and with the containers of this machine.
fn lines() -> Lines {
    let mut workloads = Workloads::new(Path::new("/proc"));
    Lines::new(
        TimeZone::system(),
        Box::new(move |cgroup, pid| workloads.of(cgroup, pid)),
    )
}

/// The inode number of the namespace that the user means.
fn netns(text: &str) -> Result<u32, UsageError> {
    /// Below it, inode numbers of /proc are never given (`PROC_DYNAMIC_FIRST`, fs/proc/generic.c),
    /// and above it there are no process ids.
    const FIRST_INODE: u32 = 0xf000_0000;
    let wrong = |what: String| UsageError(format!("--netns: {what}"));
    if let Ok(number) = text.parse::<u32>() {
        if number >= FIRST_INODE {
            return Ok(number);
        }
        return NetnsId::of_process(Path::new("/proc"), number)
            .map(|id| id.0)
            .map_err(|error| wrong(format!("no namespace of process {number}: {error}")));
    }
    let path = if text.contains('/') {
        PathBuf::from(text)
    } else {
        Path::new("/run/netns").join(text)
    };
    let facts =
        std::fs::metadata(&path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    u32::try_from(facts.ino())
        .ok()
        .filter(|number| *number >= FIRST_INODE)
        .ok_or_else(|| wrong(format!("{} is no network namespace", path.display())))
}

/// The last line, on stderr: what became of the events.
fn report(tally: &Arc<Tally>, lost: &[(&'static str, &'static str, u64)]) {
    let [seen, shown, filtered, queue_full] = [
        &tally.seen,
        &tally.shown,
        &tally.filtered,
        &tally.queue_full,
    ]
    .map(|count| count.load(Relaxed));
    // What waited when an output was given up.
    let unwritten = seen.saturating_sub(shown + filtered + queue_full);
    let in_kernel: u64 = lost.iter().map(|(_, _, lost)| lost).sum();
    let all = queue_full + unwritten + in_kernel;
    let mut text =
        format!("netobs: {seen} events seen, {shown} shown, {filtered} filtered, {all} lost");
    let mut reasons: Vec<String> = lost
        .iter()
        .map(|(program, reason, lost)| format!("{reason} in {program}: {lost}"))
        .collect();
    for (reason, count) in [("queue_full", queue_full), ("not written", unwritten)] {
        if count > 0 {
            reasons.push(format!("{reason}: {count}"));
        }
    }
    if !reasons.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(text, " ({})", reasons.join(", "));
    }
    // That nobody reads it is no error.
    let _ = writeln!(io::stderr(), "{text}");
}
