//! A bulk transfer while somebody watches, without loss and with 1 %.

use anyhow::Result;

use super::Case;
use crate::bench::load::bulk::Bulk;
use crate::bench::slowdown::slowdown;
use crate::bench::watcher::{BPFTRACE_COUNT, BPFTRACE_PRINT, REZOLUS};
use crate::bench::{Bench, Unit};

pub(super) const CASE: Case = Case {
    name: "bulk",
    about: "one connection over a veth pair, lossless and with every 100th packet dropped by nft",
    run,
};

fn run(bench: &mut Bench) -> Result<()> {
    let span = bench.span();
    for (measure, lossy) in [("lossless", false), ("1 % loss", true)] {
        let bulk = Bulk::new(lossy)?;
        slowdown(
            bench,
            measure,
            Unit::MegabytesPerSecond,
            &[BPFTRACE_COUNT, BPFTRACE_PRINT, REZOLUS],
            || bulk.send(span),
        )?;
    }
    Ok(())
}
