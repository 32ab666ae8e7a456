//! User-space CPU time per 1,000 events.

use std::time::Duration;

use anyhow::Result;

use super::Case;
use crate::bench::load::flood::{Effect, Flood};
use crate::bench::load::storm::Storm;
use crate::bench::watcher::{BPFTRACE_COUNT, BPFTRACE_PRINT, NETOBS, TCPLIFE, TCPSTATES, Watcher};
use crate::bench::{Bench, Unit};

pub(super) const CASE: Case = Case {
    name: "cpu",
    about: "CPU time of the process per 1,000 events (what it does at rest meanwhile included)",
    run,
};

/// Retransmissions a second: many, but none of the watchers loses any.
const RATE: u64 = 10_000;

fn run(bench: &mut Bench) -> Result<()> {
    let flood = Flood::new(Effect::Retransmits)?;
    let span = bench.size(Duration::from_millis(500), Duration::from_secs(5));
    each(
        bench,
        "1,000 retransmissions",
        &[NETOBS, BPFTRACE_COUNT, BPFTRACE_PRINT],
        || Ok(flood.send_for(span, Some(RATE))?.counted),
    )?;
    drop(flood);

    let storm = Storm::new()?;
    let connections = bench.size(2_000, 30_000);
    each(
        bench,
        "1,000 connections",
        &[NETOBS, TCPLIFE, TCPSTATES],
        || {
            storm.connections(connections)?;
            Ok(connections)
        },
    )
}

fn each(
    bench: &mut Bench,
    measure: &str,
    watchers: &[Watcher],
    mut work: impl FnMut() -> Result<u64>,
) -> Result<()> {
    let mut columns: Vec<(&str, Vec<f64>)> = Vec::new();
    for watcher in watchers {
        columns.push((watcher.name, Vec::new()));
    }
    for _ in 0..bench.size(2, 5) {
        for (watcher, (_, column)) in watchers.iter().zip(&mut columns) {
            let Some(running) = bench.start(watcher) else {
                column.push(f64::NAN);
                continue;
            };
            let before = running.process().cpu()?;
            let events = work()?;
            // What waits in its ring is read within a tenth of a second.
            std::thread::sleep(Duration::from_millis(200));
            let spent = running.process().cpu()?.saturating_sub(before);
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            column.push(spent.as_secs_f64() * 1e3 / (events as f64 / 1e3));
            running.stop()?;
        }
    }
    bench.paired(measure, Unit::Milliseconds, &columns);
    Ok(())
}
