//! Counting what test programs report.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::vm::{KernelReport, TestEnd};

/// Tests that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
    ignored: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl From<&KernelReport> for Tally {
    /// A kernel that falls short without a failed test has failed once.
    fn from(kernel: &KernelReport) -> Self {
        let tests = || kernel.payloads.iter().flat_map(|payload| &payload.tests);
        let count = |end: TestEnd| tests().filter(|test| test.end == end).count() as u64;
        let mut tally = Self {
            passed: count(TestEnd::Ok),
            failed: count(TestEnd::Failed),
            ignored: count(TestEnd::Ignored),
        };
        tally.settle(kernel.passed());
        tally
    }
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    /// Reads a line of a test program: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    pub(super) fn read(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else {
            return;
        };
        let number = |word: &str| {
            let (before, _) = counts.split_once(word)?;
            before.trim_end().rsplit(' ').next()?.parse().ok()
        };
        self.passed += number("passed").unwrap_or(0);
        self.failed += number("failed").unwrap_or(0);
        self.ignored += number("ignored").unwrap_or(0);
    }

    /// A program that fails without counting a failure (it crashed, or did not compile) is one.
    fn settle(&mut self, succeeded: bool) {
        if !succeeded && self.failed == 0 {
            self.failed = 1;
        }
    }

    /// Says in one line how a program did; nothing of one that has no tests.
    fn report(&self, name: &str) {
        if *self == Self::default() {
            return;
        }
        let ignored = match self.ignored {
            0 => String::new(),
            count => format!(" ({count} ignored)"),
        };
        println!("{name}: {self}{ignored}");
    }
}

/// Runs a test program; shows its output only when something failed.
pub(super) fn quiet(name: &str, program: &mut Command) -> Result<Tally> {
    let output = program
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start the tests of {name}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut tally = Tally::default();
    for line in text.lines() {
        tally.read(line);
    }
    tally.settle(output.status.success());
    if tally.failed > 0 {
        print!("{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    tally.report(name);
    Ok(tally)
}

/// Runs a test program; shows each line as it comes.
pub(super) fn loud(name: &str, program: &mut Command) -> Result<Tally> {
    let mut child = program
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start the tests of {name}"))?;
    let stdout = child
        .stdout
        .take()
        .context("a test program has no output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.with_context(|| format!("failed to read the output of {name}"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.read(&line);
    }
    let status = child
        .wait()
        .with_context(|| format!("failed to wait for {name}"))?;
    tally.settle(status.success());
    tally.report(name);
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_result_lines_only() {
        let mut tally = Tally::default();
        tally.read("test metrics::counts ... ok");
        tally.read("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out");
        tally.read("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured");
        assert_eq!(
            tally,
            Tally {
                passed: 14,
                failed: 3,
                ignored: 1
            }
        );
        assert_eq!(tally.to_string(), "14 passed, 3 failed");
    }

    #[test]
    fn a_crash_is_a_failure() {
        let mut tally = Tally {
            passed: 5,
            ..Tally::default()
        };
        tally.settle(false);
        assert_eq!(tally.failed, 1);
    }
}
