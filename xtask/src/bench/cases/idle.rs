//! What a watcher costs when nothing happens.

use std::time::Duration;

use anyhow::Result;
use testbed::{Listener, NetNs};

use super::Case;
use crate::bench::watcher::{BPFTRACE_COUNT, NETOBS, NODE_EXPORTER, REZOLUS, Running, TCPLIFE};
use crate::bench::{Bench, Unit};

pub(super) const CASE: Case = Case {
    name: "idle",
    about: "CPU, wake-ups and memory at rest, with 1 and with 100 listeners in 50 namespaces",
    run,
};

fn run(bench: &mut Bench) -> Result<()> {
    for (listeners, namespaces) in [(1, 1), (100, 50)] {
        let spaces: Vec<NetNs> = (0..namespaces)
            .map(|_| NetNs::new("idle"))
            .collect::<Result<_>>()?;
        let _open: Vec<Listener> = (0..listeners)
            .filter_map(|n| spaces.get(n % namespaces))
            .map(|ns| Listener::builder("127.0.0.1:0".parse()?).open(ns))
            .collect::<Result<_>>()?;
        let place = format!("{listeners} listeners, {namespaces} namespaces");
        if let Some(running) = bench.start(&NETOBS) {
            at_rest(bench, &place, NETOBS.name, &running)?;
            running.stop()?;
        }
    }
    for watcher in [BPFTRACE_COUNT, TCPLIFE, NODE_EXPORTER, REZOLUS] {
        if let Some(running) = bench.start(&watcher) {
            at_rest(bench, "alone", watcher.name, &running)?;
            running.stop()?;
        }
    }
    Ok(())
}

fn at_rest(bench: &mut Bench, place: &str, subject: &str, running: &Running) -> Result<()> {
    let process = running.process();
    let span = bench.size(Duration::from_secs(2), Duration::from_secs(10));
    // What start left to do is done by then.
    std::thread::sleep(Duration::from_secs(1));
    let (mut parts, mut sleeps, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.size(1, 3) {
        let before = (process.cpu()?, process.sleeps()?);
        let begun = std::time::Instant::now();
        std::thread::sleep(span);
        let time = begun.elapsed().as_secs_f64();
        let spent = process.cpu()?.saturating_sub(before.0);
        parts.push(spent.as_secs_f64() / time);
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        sleeps.push(process.sleeps()?.saturating_sub(before.1) as f64 / time);
        resident.push(process.memory()?.resident);
    }
    bench.figure(
        &format!("CPU of one core, {place}"),
        subject,
        Unit::Part,
        &parts,
    );
    bench.figure(
        &format!("wake-ups, {place}"),
        subject,
        Unit::PerSecond,
        &sleeps,
    );
    bench.figure(
        &format!("resident, {place}"),
        subject,
        Unit::Megabytes,
        &resident,
    );
    let memory = process.memory()?;
    bench.note(format!(
        "proportional {:.1} MB, peak {:.1} MB, maps in the kernel {:.1} MB",
        memory.proportional, memory.peak, memory.maps
    ));
    Ok(())
}
