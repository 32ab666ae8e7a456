//! SYNs to a listener with a full accept queue while somebody watches.

use anyhow::Result;

use super::Case;
use crate::bench::load::flood::{Effect, Flood};
use crate::bench::slowdown::slowdown;
use crate::bench::watcher::{NETOBS, sum};
use crate::bench::{Bench, Unit};

pub(super) const CASE: Case = Case {
    name: "overflow",
    about: "SYNs to a full accept queue, as fast as it goes: rate, and whether each is counted",
    run,
};

fn run(bench: &mut Bench) -> Result<()> {
    let flood = Flood::new(Effect::Overflows)?;
    let span = bench.span();
    slowdown(bench, "drops", Unit::PerSecond, &[], || {
        Ok(flood.send_for(span, None)?.rate())
    })?;

    let Some(running) = bench.start(&NETOBS) else {
        return Ok(());
    };
    let labels = [format!("netns=\"{}\"", flood.netns())];
    let count = |metrics: &str| sum(metrics, "netobs_tcp_listen_drops_total", &labels);
    let mut parts = Vec::new();
    let mut total = 0;
    for _ in 0..bench.rounds() {
        let before = count(&running.scrape()?);
        let done = flood.send_for(span, None)?;
        let after = count(&running.scrape()?);
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        parts.push((after - before) / done.counted as f64);
        total += done.counted;
    }
    running.stop()?;
    bench.figure("drops that are counted", "netobs", Unit::Part, &parts);
    bench.note(format!("{total} listen drops by the kernel's counter"));
    Ok(())
}
