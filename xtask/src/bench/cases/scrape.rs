//! A scrape, at growing numbers of series.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testbed::{Listener, NetNs};

use super::Case;
use crate::bench::watcher::{NETOBS, NODE_EXPORTER, Running};
use crate::bench::{Bench, Unit};

pub(super) const CASE: Case = Case {
    name: "scrape",
    about: "time, CPU and bytes of a scrape at 100, 1,000 and 10,000 series",
    run,
};

/// Listeners of one namespace.
const PER_NAMESPACE: usize = 100;
/// How often the number of listeners is corrected.
const GUESSES: u32 = 3;

fn run(bench: &mut Bench) -> Result<()> {
    let mut watched = Watched::default();
    // How many series a listener adds is found out, not assumed.
    let mut counts = Vec::new();
    for listeners in [10, 60] {
        watched.grow_to(listeners)?;
        let Some(running) = bench.start(&NETOBS) else {
            return Ok(());
        };
        settle();
        counts.push(series(&running.scrape()?));
        running.stop()?;
    }
    let [ten, sixty] = counts[..] else {
        return Ok(());
    };
    let each = sixty.saturating_sub(ten).div_euclid(50).max(1);
    for target in [100, 1_000, 10_000] {
        watched = Watched::default();
        watched.grow_to(target_listeners(
            target,
            ten.saturating_sub(10 * each),
            each,
        ))?;
        // The first guess leaves out what namespaces add.
        for guesses in 1.. {
            let Some(running) = bench.start(&NETOBS) else {
                return Ok(());
            };
            settle();
            let found = series(&running.scrape()?);
            if found * 100 >= target * 97 || guesses == GUESSES {
                measure(bench, &format!("{target} series"), NETOBS.name, &running)?;
                running.stop()?;
                break;
            }
            running.stop()?;
            let more = target_listeners(target, found, each);
            watched.grow_to(watched.listeners.len() + more.max(1))?;
        }
    }
    if let Some(running) = bench.start(&NODE_EXPORTER) {
        measure(bench, "netstat", NODE_EXPORTER.name, &running)?;
        running.stop()?;
    }
    Ok(())
}

/// How many listeners make `target` series of `none`, when each makes `each`.
fn target_listeners(target: usize, none: usize, each: usize) -> usize {
    target.saturating_sub(none) / each
}

/// Lets the first audit go by, which works beside the scrapes and adds series.
fn settle() {
    std::thread::sleep(Duration::from_millis(1500));
}

#[derive(Default)]
struct Watched {
    listeners: Vec<Listener>,
    spaces: Vec<NetNs>,
}

impl Watched {
    fn grow_to(&mut self, wanted: usize) -> Result<()> {
        while self.listeners.len() < wanted {
            if self.listeners.len() == self.spaces.len() * PER_NAMESPACE {
                self.spaces.push(NetNs::new("scrape")?);
            }
            let ns = self.spaces.last().context("no namespace")?;
            let listener = Listener::builder("127.0.0.1:0".parse()?).open(ns)?;
            self.listeners.push(listener);
        }
        Ok(())
    }
}

fn series(metrics: &str) -> usize {
    metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count()
}

fn measure(bench: &mut Bench, what: &str, subject: &str, running: &Running) -> Result<()> {
    let scrapes = bench.size(20, 200);
    let process = running.process();
    let (body, found) = {
        let text = running.scrape()?;
        (text.len(), series(&text))
    };
    let (mut elapsed, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let before = process.cpu()?;
        for _ in 0..scrapes / 5 {
            let begun = Instant::now();
            running.scrape()?;
            elapsed.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let spent = process.cpu()?.saturating_sub(before);
        cpu.push(spent.as_secs_f64() * 1e3 / f64::from(scrapes / 5));
    }
    bench.figure(&format!("CPU, {what}"), subject, Unit::Milliseconds, &cpu);
    bench.note(format!("{found} series"));
    bench.figure(
        &format!("elapsed, {what}"),
        subject,
        Unit::Milliseconds,
        &elapsed,
    );
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let (bytes, found) = (body as f64, found as f64);
    bench.figure(&format!("bytes, {what}"), subject, Unit::Bytes, &[bytes]);
    let each: Vec<f64> = cpu.iter().map(|time| time * 1e6 / found).collect();
    bench.figure(
        &format!("CPU per series, {what}"),
        subject,
        Unit::Nanoseconds,
        &each,
    );
    Ok(())
}
