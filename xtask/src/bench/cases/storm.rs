//! Connections opened, accepted and closed while somebody watches.

use anyhow::Result;

use super::Case;
use crate::bench::load::storm::Storm;
use crate::bench::slowdown::slowdown;
use crate::bench::watcher::{BPFTRACE_STATES, REZOLUS, TCPCONNLAT, TCPLIFE, TCPSTATES};
use crate::bench::{Bench, Unit};

pub(super) const CASE: Case = Case {
    name: "storm",
    about: "connect, accept and close, as fast as it goes, over loopback",
    run,
};

fn run(bench: &mut Bench) -> Result<()> {
    let storm = Storm::new()?;
    let span = bench.span();
    slowdown(
        bench,
        "connections",
        Unit::PerSecond,
        &[BPFTRACE_STATES, TCPLIFE, TCPSTATES, TCPCONNLAT, REZOLUS],
        || storm.blow(span),
    )
}
