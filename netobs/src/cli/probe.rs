//! `netobs probe`.

use std::{
    io::{self, IsTerminal, Write as _},
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use hyper::{
    Method,
    header::{HeaderName, HeaderValue},
};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{GlobalArgs, failure::UsageError};
use crate::{
    config::{Log, LogLevel, parse_duration},
    logging,
    path::{
        self, Environment, IpVersion, MAX_REDIRECTS, MAX_TIMEOUT, Measurement, NoKernel, Phase,
        Plan, StatusRange, Style, Summary, Target, Timeouts,
    },
};

/// More is the agent's work.
const MAX_TARGETS: usize = 64;
/// Where a terminal does not tell its width.
const WIDTH: usize = 100;

/// Measure what a request costs from here, phase by phase, and say why
///
/// Looks up the name, connects, shakes hands, asks and reads, each timed by itself, one address
/// after the other and every connection new. The story below the times says what the packets went
/// through.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ProbeArgs {
    /// A URL, HOST:PORT for a TCP connection, tls:HOST:PORT for a handshake on top, or
    /// dns:NAME[/TYPE] for a DNS question
    #[arg(value_name = "TARGET", required = true, num_args = 1..)]
    targets: Vec<Target>,
    /// How often to measure each target; 0 goes on until Ctrl-C
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    count: u64,
    /// From the beginning of one measurement to that of the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    interval: Duration,
    /// How long a measurement may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    timeout: Duration,
    /// How long one phase may take, such as connect=2s; may be repeated
    #[arg(long, value_name = "PHASE=TIME", value_parser = phase_timeout)]
    phase_timeout: Vec<(Phase, Duration)>,
    /// Which family to use; `both` measures each by itself
    #[arg(long, value_name = "FAMILY", default_value = "any")]
    ip_version: Family,
    /// Print one JSON object a line, docs/path-probe.schema.json
    #[arg(long)]
    json: bool,
    /// DNS server to ask in place of the system's. May be repeated
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = path::dns_server, help_heading = "Names")]
    server: Vec<SocketAddr>,
    /// Address of a host that is then not looked up. May be repeated
    #[arg(long, value_name = "HOST=ADDRESS", value_parser = path::given_address, help_heading = "Names")]
    resolve: Vec<(String, IpAddr)>,
    /// Response code that a dns: target is expected to have, such as NXDOMAIN [default: NOERROR]
    #[arg(long, value_name = "CODE", value_parser = code, help_heading = "Names")]
    expect_code: Option<&'static str>,
    /// Method of the request
    #[arg(long, value_name = "METHOD", default_value = "GET", value_parser = path::method, help_heading = "HTTP")]
    method: Method,
    /// Header field to send, to the first host only. May be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = path::header, help_heading = "HTTP")]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Status that is a success: 200, 2xx or 200-299. May be repeated [default: 200-399]
    #[arg(long, value_name = "STATUS", help_heading = "HTTP")]
    expect_status: Vec<StatusRange>,
    /// Redirects to follow; 0 takes a redirect as the answer
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 5,
        value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_REDIRECTS)),
        help_heading = "HTTP"
    )]
    max_redirects: u8,
    /// Bytes of a body to read
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, help_heading = "HTTP")]
    body_limit: u64,
    /// Go on when the certificate cannot be trusted; the story says why it cannot
    #[arg(long, help_heading = "TLS")]
    insecure: bool,
}

const AFTER_HELP: &str = "\
Certificates are checked against those of the system, or of SSL_CERT_FILE and SSL_CERT_DIR.

Examples:
  netobs probe https://api.example/health
  netobs probe --count 0 --interval 5s --ip-version both https://api.example/
      Both families every five seconds until Ctrl-C, then percentiles.
  netobs probe dns:api.example --server 10.96.0.10
  netobs probe db.example:5432 --json | jq .phases

Exit codes:
  0  everything was as expected
  1  nothing could be measured
  2  the command line is wrong
  3  a measurement failed or was not as expected";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Family {
    /// IPv4
    #[value(name = "4")]
    V4,
    /// IPv6
    #[value(name = "6")]
    V6,
    /// What there is
    Any,
    /// IPv4 and IPv6
    Both,
}

impl Family {
    const fn versions(self) -> &'static [IpVersion] {
        match self {
            Self::V4 => &[IpVersion::V4],
            Self::V6 => &[IpVersion::V6],
            Self::Any => &[IpVersion::Any],
            Self::Both => &[IpVersion::V4, IpVersion::V6],
        }
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(time) if time > MAX_TIMEOUT => {
            Err(format!("expected at most {} s", MAX_TIMEOUT.as_secs()))
        }
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}

fn phase_timeout(text: &str) -> Result<(Phase, Duration), String> {
    let Some((name, time)) = text.split_once('=') else {
        return Err("expected PHASE=TIME".to_owned());
    };
    let phase = Phase::ALL.into_iter().find(|phase| phase.name() == name);
    let phase = phase.ok_or_else(|| {
        let names = Phase::ALL.map(Phase::name).join(", ");
        format!("expected one of the phases {names}")
    })?;
    Ok((phase, timeout(time)?))
}

fn code(text: &str) -> Result<&'static str, String> {
    path::response_code(text).ok_or_else(|| "expected a code such as NOERROR or NXDOMAIN".into())
}

/// A line of JSON.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Measurement(&'a Measurement),
    Summary(&'a Summary),
}

impl ProbeArgs {
    /// Measures, and prints what was found.
    ///
    /// # Errors
    /// When there are too many targets, or stdout cannot be written.
    pub fn run(&self, globals: &GlobalArgs) -> anyhow::Result<ExitCode> {
        logging::init(Log {
            level: globals.log_level.unwrap_or(LogLevel::Warn),
            format: globals.log_format.unwrap_or_default(),
        })?;
        let plans = self.plans()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start the runtime")?;
        let mut report = Report::new(self, &plans)?;
        runtime.block_on(self.measure(plans, &mut report))?;
        report.end()
    }

    fn plans(&self) -> Result<Vec<Plan>, UsageError> {
        let versions = self.ip_version.versions();
        if self.targets.len() * versions.len() > MAX_TARGETS {
            let text = format!("expected at most {MAX_TARGETS} targets; `netobs run` takes more");
            return Err(UsageError(text));
        }
        let mut plans = Vec::new();
        for target in &self.targets {
            for version in versions {
                plans.push(self.plan(target, *version));
            }
        }
        Ok(plans)
    }

    fn plan(&self, target: &Target, ip_version: IpVersion) -> Plan {
        let mut plan = Plan::new(target.clone());
        plan.ip_version = ip_version;
        plan.insecure = self.insecure;
        plan.timeouts = Timeouts {
            total: self.timeout,
            phases: Phase::ALL.map(|phase| {
                let mut own = self.phase_timeout.iter().rev();
                own.find_map(|(of, time)| (*of == phase).then_some(*time))
            }),
        };
        plan.dns.servers.clone_from(&self.server);
        plan.dns.given.clone_from(&self.resolve);
        plan.dns.expect = self.expect_code;
        plan.http.method = self.method.clone();
        plan.http.headers.extend(self.header.iter().cloned());
        plan.http.max_redirects = self.max_redirects;
        plan.http.body_limit = self.body_limit;
        if !self.expect_status.is_empty() {
            plan.http.expect.clone_from(&self.expect_status);
        }
        plan
    }

    /// Every target by itself, all at their intervals, until the count is full or somebody has seen
    /// enough.
    async fn measure(&self, plans: Vec<Plan>, report: &mut Report) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt()).context("failed to await SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("failed to await SIGTERM")?;
        let environment = Arc::new(Environment::of_this_machine());
        let (sender, mut results) = mpsc::channel(MAX_TARGETS);
        let mut tasks = JoinSet::new();
        for (index, plan) in plans.into_iter().enumerate() {
            let environment = Arc::clone(&environment);
            let sender = sender.clone();
            let (count, every) = (self.count, self.interval);
            tasks.spawn(async move {
                let mut ticks = interval(every);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for sequence in 1_u64.. {
                    ticks.tick().await;
                    let result = environment.measure(&plan, sequence, &NoKernel).await;
                    if sender.send((index, result)).await.is_err() || sequence == count {
                        break;
                    }
                }
            });
        }
        drop(sender);
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                result = results.recv() => match result {
                    Some((index, measurement)) => {
                        if !report.take(index, measurement)? {
                            break;
                        }
                    }
                    None => break,
                }
            }
        }
        // What is under way is given up; its sockets close with it.
        tasks.shutdown().await;
        Ok(())
    }
}

/// What is printed, and what is kept for the end.
struct Report {
    json: bool,
    /// Whether there is one measurement of each target: shown in full at once.
    single: bool,
    style: Style,
    summaries: Vec<Summary>,
    slowest: Vec<Option<Measurement>>,
    /// Whether stdout is still read.
    open: bool,
}

impl Report {
    fn new(args: &ProbeArgs, plans: &[Plan]) -> anyhow::Result<Self> {
        let terminal = io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let columns = std::env::var("COLUMNS")
            .ok()
            .and_then(|columns| columns.parse().ok());
        let told = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let summaries = plans
            .iter()
            .map(|plan| Summary::new(&plan.name, plan.ip_version.name()))
            .collect::<Option<_>>();
        Ok(Self {
            json: args.json,
            single: args.count == 1,
            style: Style {
                width: told.or(columns).unwrap_or(WIDTH),
                colour: terminal && !plain,
            },
            summaries: summaries.ok_or_else(|| anyhow!("failed to make a summary"))?,
            slowest: plans.iter().map(|_| None).collect(),
            open: true,
        })
    }

    /// Prints a measurement and counts it in; `false` when nobody reads any more.
    fn take(&mut self, index: usize, measurement: Measurement) -> anyhow::Result<bool> {
        if let Some(summary) = self.summaries.get_mut(index) {
            summary.add(&measurement);
        }
        let text = if self.json {
            json(&Line::Measurement(&measurement))?
        } else if self.single {
            path::waterfall(&measurement, self.style)
        } else {
            path::line(&measurement, self.style)
        };
        if let Some(slowest) = self.slowest.get_mut(index)
            && slowest
                .as_ref()
                .is_none_or(|slowest| slowest.phases.total < measurement.phases.total)
        {
            *slowest = Some(measurement);
        }
        self.print(&text)?;
        Ok(self.open)
    }

    /// Prints what is to be said of all, and says how it went.
    fn end(mut self) -> anyhow::Result<ExitCode> {
        let summaries = std::mem::take(&mut self.summaries);
        let slowest = std::mem::take(&mut self.slowest);
        if !self.single {
            for (summary, slowest) in summaries.iter().zip(&slowest) {
                let text = if self.json {
                    json(&Line::Summary(summary))?
                } else {
                    let slowest = slowest.as_ref();
                    let drawn = slowest.map_or_else(String::new, |slowest| {
                        let drawn = path::waterfall(slowest, self.style);
                        format!("\nslowest, number {}:\n{drawn}", slowest.sequence)
                    });
                    format!("\n{}{drawn}", path::table(summary))
                };
                self.print(&text)?;
            }
        }
        let measured = |summary: &Summary| summary.measurements > 0;
        if !summaries.iter().any(measured) {
            return Err(anyhow!("nothing was measured before it was stopped"));
        }
        let fine = summaries
            .iter()
            .all(|summary| summary.successes == summary.measurements);
        Ok(ExitCode::from(if fine { 0 } else { 3 }))
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        if !self.open {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.open = false;
                Ok(())
            }
            result => result,
        }
    }
}

fn json(line: &Line<'_>) -> anyhow::Result<String> {
    let mut text = serde_json::to_string(line).context("failed to write JSON")?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_phases() {
        let limit = phase_timeout("first_byte=500ms").unwrap();
        assert_eq!(limit, (Phase::FirstByte, Duration::from_millis(500)));
        for (bad, why) in [
            ("connect", "PHASE=TIME"),
            ("cnnect=1s", "dns, connect"),
            ("dns=0", "above 0"),
            ("dns=1h", "at most 600 s"),
        ] {
            assert!(phase_timeout(bad).unwrap_err().contains(why), "{bad}");
        }
    }
}
