//! What BPF programs cost in the kernel, by its own run-time statistics.
//!
//! Time and runs of every program are read before and after a piece of work; the work's events are
//! counted by the kernel's counters. "per event" is the time of all programs of a watcher.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::Case;
use crate::bench::load::flood::{Effect, Flood};
use crate::bench::load::hold::BlackHole;
use crate::bench::load::storm::Storm;
use crate::bench::process::ProgramRuns;
use crate::bench::statistics::Statistics;
use crate::bench::watcher::{
    BPFTRACE_COUNT, BPFTRACE_PRINT, BPFTRACE_STATES, NETOBS, TCPLIFE, TCPSTATES, Watcher,
};
use crate::bench::{Bench, Unit};
use crate::command;

pub(super) const CASE: Case = Case {
    name: "kernel",
    about: "time in BPF programs per event and per run (kernel.bpf_stats_enabled)",
    run,
};

fn run(bench: &mut Bench) -> Result<()> {
    let statistics = Statistics::keep()?;
    let flood = Flood::new(Effect::Retransmits)?;
    let n = bench.size(20_000, 200_000);
    each(
        bench,
        "SYN-ACK retransmitted",
        &[NETOBS, BPFTRACE_COUNT, BPFTRACE_PRINT],
        || Ok(flood.send(n)?.counted),
    )?;
    drop(flood);

    // Held SYNs are sent again each second: one measurement is a second's worth.
    let mut hole = BlackHole::new()?;
    hole.add(bench.size(2_000, 12_000))?;
    each(
        bench,
        "SYN retransmitted",
        &[NETOBS, BPFTRACE_COUNT, BPFTRACE_PRINT],
        || {
            let before = hole.retransmitted()?;
            std::thread::sleep(std::time::Duration::from_secs(2));
            Ok(hole.retransmitted()?.wrapping_sub(before))
        },
    )?;
    drop(hole);

    let flood = Flood::new(Effect::Overflows)?;
    each(bench, "SYN dropped", &[NETOBS], || {
        Ok(flood.send(n)?.counted)
    })?;
    drop(flood);

    let storm = Storm::new()?;
    let connections = bench.size(2_000, 20_000);
    each(
        bench,
        "connection",
        &[NETOBS, BPFTRACE_STATES, TCPLIFE, TCPSTATES],
        || {
            storm.connections(connections)?;
            Ok(connections)
        },
    )?;
    drop(statistics);
    Ok(())
}

/// Measures a piece of work, which returns how many events it made, under each watcher in turns.
fn each(
    bench: &mut Bench,
    event: &str,
    watchers: &[Watcher],
    mut work: impl FnMut() -> Result<u64>,
) -> Result<()> {
    work()?;
    let mut columns: Vec<(&str, Vec<f64>)> = Vec::new();
    for watcher in watchers {
        columns.push((watcher.name, Vec::new()));
    }
    // Of the agent only, by program: nanoseconds per run and runs per event.
    let mut by_program: BTreeMap<String, [Vec<f64>; 2]> = BTreeMap::new();
    for _ in 0..bench.rounds() {
        for (watcher, (_, column)) in watchers.iter().zip(&mut columns) {
            let Some(running) = bench.start(watcher) else {
                column.push(f64::NAN);
                continue;
            };
            let before = running.process().programs()?;
            let events = work()?;
            let after = running.process().programs()?;
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            let events = events as f64;
            let spent = spent(&before, &after);
            let total: u64 = spent.iter().map(|runs| runs.nanoseconds).sum();
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            column.push(total as f64 / events);
            if watcher.name == NETOBS.name {
                let names = names();
                for runs in spent.iter().filter(|runs| runs.runs > 0) {
                    let name = names.get(&runs.id).cloned();
                    let name = name.unwrap_or_else(|| format!("program {}", runs.id));
                    let [per_run, per_event] = by_program.entry(name).or_default();
                    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
                    {
                        per_run.push(runs.nanoseconds as f64 / runs.runs as f64);
                        per_event.push(runs.runs as f64 / events);
                    }
                }
            }
            running.stop()?;
        }
    }
    bench.paired(&format!("per {event}"), Unit::Nanoseconds, &columns);
    for (program, [per_run, per_event]) in by_program {
        let subject = format!("netobs: {program}");
        bench.figure(
            &format!("per run, {event}"),
            &subject,
            Unit::Nanoseconds,
            &per_run,
        );
        if let Some(runs) = crate::bench::Summary::of(&per_event) {
            bench.note(format!("{:.3} runs per event", runs.median));
        }
    }
    Ok(())
}

/// What programs cost between two readings.
fn spent(before: &[ProgramRuns], after: &[ProgramRuns]) -> Vec<ProgramRuns> {
    after
        .iter()
        .map(|now| {
            let then = before.iter().find(|then| then.id == now.id).copied();
            let then = then.unwrap_or_default();
            ProgramRuns {
                id: now.id,
                nanoseconds: now.nanoseconds.saturating_sub(then.nanoseconds),
                runs: now.runs.saturating_sub(then.runs),
            }
        })
        .collect()
}

/// Names of the loaded programs, as far as bpftool tells them.
fn names() -> BTreeMap<u32, String> {
    #[derive(serde::Deserialize)]
    struct Loaded {
        id: u32,
        name: Option<String>,
    }
    let read = || -> Result<BTreeMap<u32, String>> {
        let mut bpftool = crate::bench::demanded("bpftool")?;
        let text = command::output(bpftool.args(["--json", "prog", "show"]))
            .context("bpftool lists nothing")?;
        let loaded: Vec<Loaded> = serde_json::from_str(&text).context("no list of programs")?;
        Ok(loaded
            .into_iter()
            .filter_map(|program| Some((program.id, program.name?)))
            .collect())
    };
    read().unwrap_or_default()
}
