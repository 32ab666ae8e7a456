//! Events at rising rates: each must be counted, and each loss of detail must be told.

use std::time::Duration;

use anyhow::Result;

use super::Case;
use crate::bench::load::flood::{Done, Effect, Flood};
use crate::bench::load::hold::BlackHole;
use crate::bench::watcher::{BPFTRACE_PRINT, NETOBS, Running, sum};
use crate::bench::{Bench, Unit};

pub(super) const CASE: Case = Case {
    name: "rates",
    about: "retransmissions at rising rates: counted, against the kernel's counters, and lost from the ring",
    run,
};

/// Events a second; `None`: as fast as the machine makes them.
const RATES: &[Option<u64>] = &[Some(1_000), Some(10_000), Some(50_000), Some(100_000), None];

fn run(bench: &mut Bench) -> Result<()> {
    let flood = Flood::new(Effect::Retransmits)?;
    let span = bench.size(Duration::from_millis(500), Duration::from_secs(5));
    for rate in RATES {
        let wanted = rate.map_or_else(|| "most".to_owned(), |rate| format!("{rate}/s"));
        if let Some(running) = bench.start(&NETOBS) {
            netobs(bench, &running, flood.netns(), &wanted, || {
                flood.send_for(span, *rate)
            })?;
            running.stop()?;
        }
        if let Some(running) = bench.start(&BPFTRACE_PRINT) {
            let done = flood.send_for(span, *rate)?;
            // It prints what it has read before it stops.
            std::thread::sleep(span / 2);
            let output = running.stop()?;
            let lines = output.lines().filter(|line| line.starts_with("S "));
            note_printed(bench, &wanted, done, lines.count());
        }
    }
    drop(flood);

    // SYNs of many sockets fall due together: 100 ms see more than a second's mean.
    let mut hole = BlackHole::new()?;
    let sockets = bench.size(2_000, 48_000);
    hole.add(sockets)?;
    if let Some(running) = bench.start(&NETOBS) {
        let wanted = format!("bursts of {sockets} SYNs");
        netobs(bench, &running, hole.netns(), &wanted, || {
            let before = hole.retransmitted()?;
            let begun = std::time::Instant::now();
            std::thread::sleep(span.max(Duration::from_secs(2)));
            Ok(Done {
                counted: hole.retransmitted()?.wrapping_sub(before),
                time: begun.elapsed(),
            })
        })?;
        running.stop()?;
    }
    Ok(())
}

/// One measurement of the agent: how many of the kernel's events it counted and read.
fn netobs(
    bench: &mut Bench,
    running: &Running,
    netns: u32,
    wanted: &str,
    work: impl FnOnce() -> Result<Done>,
) -> Result<()> {
    let read = |metrics: &str| {
        let here = [format!("netns=\"{netns}\"")];
        let ring = ["reason=\"ring_full\"".to_owned()];
        [
            sum(metrics, "netobs_tcp_retransmitted_segments_total", &here),
            sum(metrics, "netobs_events_lost_total", &ring),
            sum(
                metrics,
                "netobs_events_total",
                &["probe=\"tcp_retransmit_s".to_owned()],
            ),
            unattributed(metrics, &here),
        ]
    };
    let [counted, lost, events, _] = read(&running.scrape()?);
    let done = work()?;
    let [counted_then, lost_then, events_then, unattributed] = read(&running.scrape()?);
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let kernel = done.counted as f64;
    let events = events_then - events;
    let lost = lost_then - lost;
    let counted = counted_then - counted;
    bench.figure(
        &format!("{wanted}: made"),
        "kernel",
        Unit::PerSecond,
        &[done.rate()],
    );
    bench.figure(
        &format!("{wanted}: counted"),
        "netobs",
        Unit::Part,
        &[counted / kernel],
    );
    bench.note(format!(
        "{counted} of {} by the kernel's counter; unattributed {unattributed}",
        done.counted
    ));
    bench.figure(
        &format!("{wanted}: lost from the ring"),
        "netobs",
        Unit::Part,
        &[lost / events],
    );
    bench.note(format!("{lost} of {events} events, as it reports"));
    Ok(())
}

/// What the agent itself says is missing.
fn unattributed(metrics: &str, here: &[String; 1]) -> f64 {
    let mut labels = here.to_vec();
    labels.push("counter=\"TcpExt_TCPSynRetrans\"".to_owned());
    sum(metrics, "netobs_ledger_unattributed", &labels)
}

fn note_printed(bench: &mut Bench, wanted: &str, done: Done, lines: usize) {
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let part = lines as f64 / done.counted as f64;
    bench.figure(
        &format!("{wanted}: counted"),
        BPFTRACE_PRINT.name,
        Unit::Part,
        &[part],
    );
    bench.note(format!("{lines} lines for {} events", done.counted));
}
