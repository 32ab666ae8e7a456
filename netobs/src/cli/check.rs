//! `netobs check`.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{
    GlobalArgs,
    environment::Environment,
    print,
    run::{config_file, overrides},
};
use crate::{
    agent::{Facts, Survey, survey},
    config::{BtfSource, Config, Log, LogLevel, Overrides, parse_btf},
    logging,
};

/// Say what this machine can show, how exactly, what is missing and what to do about it
///
/// Attaches every probe for real, looks, and detaches. Nothing is counted and nothing is served.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct CheckArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// TOML file of `netobs run`, for the probes that it switches on and off; its variables count,
    /// too
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Probe to attach on top of those that are on by default. May be repeated
    #[arg(long = "probe", value_name = "NAME")]
    enable: Vec<String>,
    /// Probe not to attach. May be repeated
    #[arg(long = "no-probe", value_name = "NAME")]
    disable: Vec<String>,
    /// File with the kernel's type information (BTF) in place of the running kernel's own; `none`
    /// uses only methods that need none
    #[arg(long, value_name = "FILE|none", value_parser = parse_btf)]
    btf: Option<BtfSource>,
}

const AFTER_HELP: &str = "\
Examples:
  netobs check
  netobs check --json | jq '.signals[] | select(.exactness != \"exact\")'

Exit codes:
  0  every wanted probe can be attached
  1  one cannot, or nothing could be tried
  2  the command line or the configuration is wrong";

impl CheckArgs {
    /// Looks, and prints what was found.
    ///
    /// # Errors
    /// When file or flags are wrong, or stdout cannot be written.
    pub fn run(&self, globals: &GlobalArgs, known_probes: &[&str]) -> anyhow::Result<ExitCode> {
        let flags = Overrides {
            enable: self.enable.clone(),
            disable: self.disable.clone(),
            btf: self.btf.clone(),
            log_format: globals.log_format,
            ..Overrides::default()
        };
        let environment = Environment::read()?;
        let config = Config::resolve_all(
            config_file(self.config.as_deref(), false, &environment).as_deref(),
            overrides(&environment.run, &environment.globals),
            flags,
            known_probes,
        )?;
        // The report says all that the log would.
        logging::init(Log {
            level: globals.log_level.unwrap_or(LogLevel::Error),
            format: config.log.format,
        })?;
        let survey = survey(&config);
        let text = if self.json {
            format!("{:#}\n", serde_json::to_value(&survey)?)
        } else {
            text(&survey)
        };
        print(text.as_bytes())?;
        Ok(if survey.complete {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Writing to a string cannot fail, so results of `write!` are dropped here.
fn text(survey: &Survey) -> String {
    let mut out = String::new();
    write_facts(&mut out, &survey.facts, survey.version);
    if let Some(error) = &survey.error {
        let _ = writeln!(out, "\nNothing can be observed: {error}");
        if let Some(hint) = &survey.hint {
            let _ = writeln!(out, "  do: {hint}");
        }
        return out;
    }
    let _ = writeln!(out, "\nSignals");
    let rows = survey.signals.iter().map(|signal| {
        [
            signal.signal.name(),
            signal.method,
            signal.exactness.name(),
            signal.because,
        ]
    });
    write_table(&mut out, ["SIGNAL", "METHOD", "EXACTNESS", "WHY"], rows);
    let _ = writeln!(out, "\nProbes");
    let width = survey.probes.iter().map(|it| it.probe.len()).max();
    for probe in &survey.probes {
        let state = if probe.attached {
            "attached"
        } else {
            "not attached"
        };
        let width = width.unwrap_or(0);
        let _ = writeln!(
            out,
            "  {:width$}  {:10}  {state}",
            probe.probe, probe.method
        );
        for failure in &probe.reasons {
            let _ = writeln!(
                out,
                "    not by {}: {}",
                failure.method,
                one_line(&failure.reason)
            );
            if let Some(remedy) = &failure.remedy {
                let _ = writeln!(out, "      do: {remedy}");
            }
        }
        if let Some(without) = probe.without {
            let _ = writeln!(out, "    without it: {without}");
        }
    }
    let verdict = if survey.complete {
        "\nEvery wanted probe can be attached."
    } else {
        "\nNot every wanted probe can be attached."
    };
    let _ = writeln!(out, "{verdict}");
    out
}

fn write_facts(out: &mut String, facts: &Facts, version: &str) {
    let unknown = "unknown";
    let release = facts.kernel_release.as_deref().unwrap_or(unknown);
    let architecture = facts.architecture;
    let _ = writeln!(
        out,
        "netobs {version} on Linux {release} ({architecture})\n"
    );
    let bpf_disabled = facts
        .unprivileged_bpf_disabled
        .map_or_else(|| unknown.to_owned(), |value| value.to_string());
    let users = match facts.in_user_namespace {
        Some(false) => "the first",
        Some(true) => "one of its own: capabilities do not count for BPF",
        None => unknown,
    };
    let lines = [
        ("lockdown", facts.lockdown.as_deref().unwrap_or(unknown)),
        ("user namespace", users),
        (
            "type information",
            if facts.btf {
                "/sys/kernel/btf/vmlinux"
            } else {
                "none"
            },
        ),
        (
            "tracefs",
            facts
                .tracefs
                .as_deref()
                .unwrap_or("not mounted, or not allowed to look into"),
        ),
        ("kernel.unprivileged_bpf_disabled", &bpf_disabled),
    ];
    for (name, value) in lines {
        let _ = writeln!(out, "  {name:32}  {value}");
    }
    let held = if facts.missing_capabilities.is_empty() {
        "all that netobs has a use for"
    } else {
        "not all that netobs has a use for; missing:"
    };
    let _ = writeln!(out, "  {:32}  {held}", "capabilities");
    for missing in &facts.missing_capabilities {
        let _ = writeln!(out, "    {}: {}", missing.name, missing.costs);
    }
}

fn write_table<'a>(
    out: &mut String,
    head: [&'a str; 4],
    rows: impl Iterator<Item = [&'a str; 4]> + Clone,
) {
    let lines = std::iter::once(head).chain(rows);
    let mut widths = [0; 4];
    for line in lines.clone() {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.len().max(*width);
        }
    }
    let [a, b, c, _] = widths;
    for [first, second, third, last] in lines {
        let _ = writeln!(out, "  {first:a$}  {second:b$}  {third:c$}  {last}");
    }
}

/// A verifier's last lines, on one.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" | ")
}
