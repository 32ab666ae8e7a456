//! From the start of the process to everything attached.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Case;
use crate::bench::watcher::{BPFTRACE_COUNT, NETOBS, REZOLUS, TCPLIFE, TCPSTATES};
use crate::bench::{Bench, Unit};

pub(super) const CASE: Case = Case {
    name: "start",
    about: "time from the start of the process to its last hook, and until it says that it is ready",
    run,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn run(bench: &mut Bench) -> Result<()> {
    let watchers = [NETOBS, BPFTRACE_COUNT, TCPLIFE, TCPSTATES, REZOLUS];
    let mut columns: Vec<(&str, Vec<f64>)> = watchers
        .iter()
        .map(|watcher| (watcher.name, Vec::new()))
        .collect();
    let (mut ready, mut cpu, mut peak) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.size(3, 11) {
        for (watcher, (_, column)) in watchers.iter().zip(&mut columns) {
            let attached = watcher
                .launch(&bench.agent)
                .and_then(|mut running| Ok((running.attached()?, running)));
            match attached {
                Ok((time, running)) => {
                    column.push(time.as_secs_f64() * 1e3);
                    if watcher.name == NETOBS.name {
                        cpu.push(running.process().cpu()?.as_secs_f64() * 1e3);
                        peak.push(running.process().memory()?.peak);
                    }
                    running.stop()?;
                }
                Err(error) => {
                    column.push(f64::NAN);
                    bench.absent(watcher.name, &format!("{error:#}"));
                }
            }
        }
        // Once more: a question a millisecond would disturb the other measurement.
        let begun = Instant::now();
        let mut running = NETOBS.launch(&bench.agent)?;
        while !running.is_ready() {
            running.alive()?;
            ensure!(begun.elapsed() < PATIENCE, "netobs does not become ready");
            std::thread::sleep(Duration::from_millis(1));
        }
        ready.push(begun.elapsed().as_secs_f64() * 1e3);
        running.stop()?;
    }
    bench.paired("attached", Unit::Milliseconds, &columns);
    bench.figure("ready", "netobs", Unit::Milliseconds, &ready);
    bench.figure("CPU time", "netobs", Unit::Milliseconds, &cpu);
    bench.figure("peak resident", "netobs", Unit::Megabytes, &peak);
    Ok(())
}
