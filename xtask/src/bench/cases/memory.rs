//! How memory grows with sockets, namespaces and connections that come and go.

use std::time::Duration;

use anyhow::Result;
use testbed::{Listener, NetNs};

use super::Case;
use crate::bench::load::hold::BlackHole;
use crate::bench::load::storm::Storm;
use crate::bench::watcher::{NETOBS, Running};
use crate::bench::{Bench, Unit};

pub(super) const CASE: Case = Case {
    name: "memory",
    about: "memory with 1,000 to 100,000 tracked sockets, 1 to 500 namespaces, and after a million connections",
    run,
};

fn run(bench: &mut Bench) -> Result<()> {
    let Some(running) = bench.start(&NETOBS) else {
        return Ok(());
    };
    settle();
    note(bench, "at rest", &running)?;
    // Sockets are tracked once they retransmit: these do so after a second.
    let mut hole = BlackHole::new()?;
    let mut held = 0;
    for sockets in bench.size([100, 1_000, 5_000], [1_000, 10_000, 100_000]) {
        hole.add(sockets - held)?;
        held = sockets;
        std::thread::sleep(Duration::from_secs(2));
        running.scrape()?;
        note(bench, &format!("{sockets} sockets"), &running)?;
    }
    drop(hole);
    running.stop()?;

    for namespaces in bench.size([1, 10, 50], [1, 50, 500]) {
        let spaces: Vec<NetNs> = (0..namespaces)
            .map(|_| NetNs::new("memory"))
            .collect::<Result<_>>()?;
        let _open: Vec<Listener> = spaces
            .iter()
            .map(|ns| Listener::builder("127.0.0.1:0".parse()?).open(ns))
            .collect::<Result<_>>()?;
        let Some(running) = bench.start(&NETOBS) else {
            return Ok(());
        };
        running.scrape()?;
        settle();
        note(bench, &format!("{namespaces} namespaces"), &running)?;
        running.stop()?;
    }

    let Some(running) = bench.start(&NETOBS) else {
        return Ok(());
    };
    let storm = Storm::new()?;
    settle();
    running.scrape()?;
    let before = running.process().memory()?.resident;
    let connections = bench.size(20_000, 1_000_000);
    storm.connections(connections)?;
    running.scrape()?;
    let after = running.process().memory()?.resident;
    bench.figure(
        "growth over a million connections",
        "netobs",
        Unit::Megabytes,
        &[after - before],
    );
    bench.note(format!(
        "{connections} connections; resident {before:.1} MB before"
    ));
    running.stop()?;
    Ok(())
}

/// Lets a look, a discovery and an audit go by.
fn settle() {
    std::thread::sleep(Duration::from_secs(2));
}

fn note(bench: &mut Bench, measure: &str, running: &Running) -> Result<()> {
    let memory = running.process().memory()?;
    bench.figure(
        &format!("resident, {measure}"),
        "netobs",
        Unit::Megabytes,
        &[memory.resident],
    );
    bench.note(format!(
        "proportional {:.1} MB, peak {:.1} MB",
        memory.proportional, memory.peak
    ));
    bench.figure(
        &format!("maps in the kernel, {measure}"),
        "netobs",
        Unit::Megabytes,
        &[memory.maps],
    );
    Ok(())
}
