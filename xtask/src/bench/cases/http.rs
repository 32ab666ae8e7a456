//! A web server under load while somebody watches.

use anyhow::Result;

use super::Case;
use crate::bench::load::http::Http;
use crate::bench::slowdown::slowdown;
use crate::bench::watcher::{BPFTRACE_STATES, TCPLIFE};
use crate::bench::{Bench, Unit};

pub(super) const CASE: Case = Case {
    name: "http",
    about: "nginx and wrk over a veth pair: connections kept, and one for each request",
    run,
};

fn run(bench: &mut Bench) -> Result<()> {
    let http = Http::new()?;
    // wrk counts in whole seconds.
    let seconds = bench.size(1, 3);
    for (measure, close) in [("requests, kept", false), ("requests, one each", true)] {
        slowdown(
            bench,
            measure,
            Unit::PerSecond,
            &[BPFTRACE_STATES, TCPLIFE],
            || http.requests(seconds, close),
        )?;
    }
    Ok(())
}
