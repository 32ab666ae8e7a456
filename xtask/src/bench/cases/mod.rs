//! The cases, one file each.

use anyhow::Result;

use super::Bench;

mod bulk;
mod cpu;
mod http;
mod idle;
mod instructions;
mod kernel;
mod memory;
mod overflow;
mod rates;
mod scrape;
mod size;
mod start;
mod storm;
mod test_run;

/// Something that is measured.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) run: fn(&mut Bench) -> Result<()>,
}

/// All of them, in the order in which they run.
pub(super) const CASES: &[Case] = &[
    kernel::CASE,
    test_run::CASE,
    cpu::CASE,
    rates::CASE,
    storm::CASE,
    overflow::CASE,
    bulk::CASE,
    http::CASE,
    idle::CASE,
    start::CASE,
    scrape::CASE,
    memory::CASE,
    size::CASE,
    instructions::CASE,
];
