//! `cargo xtask bench`: what netobs costs, beside what others cost for the same work.
//!
//! Everything happens in network namespaces of the benchmark's own, as root. What is compared is
//! measured in turns (A B A B ...), and the ratio is that of each turn; figures are medians with
//! the least and the most beside them. A case is one file in `cases`; a budget is one line in
//! `budgets`; `docs/performance.md` is written from the record of a run.

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{build, command, workspace};

mod budgets;
mod cases;
mod environment;
mod load;
mod peers;
mod process;
mod record;
mod report;
mod slowdown;
mod statistics;
mod table;
mod watcher;

use cases::{CASES, Case};
use environment::Environment;
pub(crate) use load::hold::{Args as HoldArgs, hold};
use record::{Absent, Figure, Ratio, Record, Summary, Unit};
use watcher::{Running, Watcher};

/// The record that `docs/performance.md` is written from.
const RECORD: &str = "docs/performance.json";
const REPORT: &str = "docs/performance.md";

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Cases to run; all when none is named
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    /// List the cases and stop
    #[arg(long)]
    list: bool,
    /// Small sizes: shows that everything works; the figures mean little
    #[arg(long)]
    quick: bool,
    /// Write what was found to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Install the peers that are missing (packages, and one crate that is built)
    #[arg(long)]
    install_peers: bool,
    /// Write docs/performance.json and docs/performance.md; with cases named, only their figures
    /// are replaced
    #[arg(long, conflicts_with = "quick")]
    write_docs: bool,
    /// Only write docs/performance.md anew from docs/performance.json
    #[arg(long, conflicts_with_all = ["quick", "json", "write_docs", "cases"])]
    render: bool,
    /// Measure this agent instead of building one
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// Runs cases, prints a table, and writes what was asked for.
pub(crate) fn bench(args: &Args) -> Result<()> {
    if args.list {
        for case in CASES {
            println!("{:14} {}", case.name, case.about);
        }
        return Ok(());
    }
    let root = workspace::root();
    if args.render {
        let record = Record::read(&root.join(RECORD))?;
        return report::write(&record, &root.join(REPORT));
    }
    let chosen = choose(&args.cases)?;
    let agent = match &args.agent {
        Some(agent) => agent.clone(),
        None => build::agent(&build::Args {
            release: true,
            linked_in: false,
            target: None,
        })?,
    };
    if !command::is_root() {
        return again_as_root(&agent);
    }
    if args.install_peers {
        peers::install()?;
    }
    let environment = Environment::read(peers::versions());
    let mut bench = Bench {
        agent,
        quick: args.quick,
        case: "",
        record: Record::new(args.quick, environment),
    };
    for case in &chosen {
        bench.case = case.name;
        let begun = Instant::now();
        println!("{}: {}", case.name, case.about);
        if let Err(error) = (case.run)(&mut bench) {
            bench.absent("everything", &format!("{error:#}"));
        }
        table::print_case(&bench.record, case.name);
        println!("  ({:.0} s)\n", begun.elapsed().as_secs_f64());
    }
    let mut record = bench.record;
    table::print_budgets(&record);
    if let Some(file) = &args.json {
        record.write(file)?;
    }
    if args.write_docs {
        let names: Vec<&str> = chosen.iter().map(|case| case.name).collect();
        let stored = root.join(RECORD);
        if chosen.len() < CASES.len() && stored.is_file() {
            let mut older = Record::read(&stored)?;
            older.replace(record, &names);
            record = older;
        }
        record.write(&stored)?;
        report::write(&record, &root.join(REPORT))?;
    }
    Ok(())
}

/// The cases of these names, in the order of the table.
fn choose(names: &[String]) -> Result<Vec<&'static Case>> {
    let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    for name in &wanted {
        ensure!(
            CASES.iter().any(|case| case.name == *name),
            "there is no case {name}: `cargo xtask bench --list`"
        );
    }
    Ok(CASES
        .iter()
        .filter(|case| wanted.is_empty() || wanted.contains(case.name))
        .collect())
}

/// Runs this command once more as root, with the agent that the user has built.
fn again_as_root(agent: &std::path::Path) -> Result<()> {
    let own = env::current_exe().context("failed to find this program")?;
    let mut command = command::as_root("env")?;
    for name in [
        "PATH",
        "CARGO",
        "CARGO_MANIFEST_DIR",
        "CARGO_TARGET_DIR",
        "HOME",
    ] {
        if let Some(value) = env::var_os(name) {
            let mut variable = std::ffi::OsString::from(format!("{name}="));
            variable.push(value);
            command.arg(variable);
        }
    }
    command.arg(own).args(env::args_os().skip(1));
    command.arg("--agent").arg(agent);
    command::run(&mut command)
}

/// A run under way, as a case sees it.
pub(super) struct Bench {
    agent: PathBuf,
    quick: bool,
    case: &'static str,
    record: Record,
}

impl Bench {
    /// How often things are measured in turns.
    fn rounds(&self) -> usize {
        if self.quick { 2 } else { 7 }
    }

    /// The size or the time for a quick run, or for a real one.
    fn size<T>(&self, quick: T, real: T) -> T {
        if self.quick { quick } else { real }
    }

    /// How long one measurement of a rate lasts.
    fn span(&self) -> Duration {
        self.size(Duration::from_millis(300), Duration::from_secs(2))
    }

    /// Starts a watcher; one that is not here or does not start is said to be absent.
    fn start(&mut self, watcher: &Watcher) -> Option<Running> {
        match watcher.start(&self.agent) {
            Ok(running) => Some(running),
            Err(error) => {
                self.absent(watcher.name, &format!("{error:#}"));
                None
            }
        }
    }

    /// Notes that something is not here to be measured; once for each subject.
    fn absent(&mut self, subject: &str, reason: &str) {
        let (case, subject) = (self.case.to_owned(), subject.to_owned());
        let known = |absent: &Absent| absent.case == case && absent.subject == subject;
        if !self.record.absent.iter().any(known) {
            self.record.absent.push(Absent {
                case,
                subject,
                reason: reason.to_owned(),
            });
        }
    }

    /// Notes a figure. Nothing is noted of no values.
    fn figure(&mut self, measure: &str, subject: &str, unit: Unit, values: &[f64]) {
        if let Some(value) = Summary::of(values) {
            self.record.figures.push(Figure {
                case: self.case.to_owned(),
                measure: measure.to_owned(),
                subject: subject.to_owned(),
                unit,
                value,
                ratio: None,
                note: None,
            });
        }
    }

    /// Adds the ratio to `reference`, turn by turn, to the figure that was noted last.
    fn ratio(&mut self, reference: &str, values: &[f64], references: &[f64]) {
        let ratios: Vec<f64> = values
            .iter()
            .zip(references)
            .map(|(value, reference)| value / reference)
            .collect();
        if let (Some(figure), Some(value)) = (self.record.figures.last_mut(), Summary::of(&ratios))
        {
            figure.ratio = Some(Ratio {
                to: reference.to_owned(),
                value,
            });
        }
    }

    /// Adds a remark to the figure that was noted last.
    fn note(&mut self, note: impl Into<String>) {
        if let Some(figure) = self.record.figures.last_mut() {
            figure.note = Some(note.into());
        }
    }

    /// Notes the values of several subjects that were measured in turns; ratios are to the first.
    fn paired(&mut self, measure: &str, unit: Unit, columns: &[(&str, Vec<f64>)]) {
        let Some((reference, references)) = columns.first() else {
            return;
        };
        for (subject, values) in columns {
            self.figure(measure, subject, unit, values);
            if subject != reference {
                self.ratio(reference, values, references);
            }
        }
    }
}

/// A command of the search path that has to be there.
fn demanded(program: &str) -> Result<Command> {
    match peers::find(program) {
        Some(path) => Ok(Command::new(path)),
        None => bail!("{}", peers::absence(program)),
    }
}
