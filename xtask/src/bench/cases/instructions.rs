//! Instructions of the agent's paths, counted by callgrind: the same on every machine.
//!
//! `netobs/benches/paths.rs` runs one path a number of times. Two runs of different length tell what
//! one time costs; what start and end cost falls out.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Case;
use crate::bench::{Bench, Unit, demanded};
use crate::{build, workspace};

pub(super) const CASE: Case = Case {
    name: "instructions",
    about: "instructions per decoded event and per scrape (callgrind)",
    run,
};

/// Paths of the program, with a small and a larger number of repetitions.
const PATHS: &[(&str, &str, u32, u32)] = &[
    ("per decoded event", "decode", 1_000, 11_000),
    ("per look at 100 listeners", "observe", 10, 60),
    ("per scrape of 1,000 series", "encode", 2, 12),
];

fn run(bench: &mut Bench) -> Result<()> {
    demanded("valgrind")?;
    let mut cargo = workspace::cargo("bench");
    cargo.args(["--package", "netobs", "--bench", "paths", "--no-run"]);
    // Callgrind names functions by these.
    cargo.env("CARGO_PROFILE_BENCH_STRIP", "none");
    let program = build::artifacts(&mut cargo)?
        .into_iter()
        .find(|artifact| artifact.target.name == "paths")
        .context("cargo built no program `paths`")?
        .executable;
    for (measure, path, few, many) in PATHS {
        let few = (*few, count(&program, path, *few)?);
        let many = (*many, count(&program, path, *many)?);
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let each = (many.1 - few.1) as f64 / f64::from(many.0 - few.0);
        bench.figure(measure, "netobs", Unit::Instructions, &[each]);
    }
    Ok(())
}

/// Instructions of one run of the program.
fn count(program: &Path, path: &str, times: u32) -> Result<u64> {
    let output = demanded("valgrind")?
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([path, &times.to_string()])
        .output()
        .context("failed to run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {said}");
    let (_, collected) = said
        .rsplit_once("Collected : ")
        .context("callgrind told no count")?;
    let digits: String = collected.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().context("callgrind told no count")
}
