//! What came of a run: per kernel its end, its payloads' tests, and the signals they measured.

mod again;
mod parse;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use vm_init::{ExitCause, Stream};

pub(crate) use again::Todo;

/// Output lines kept for each payload, to be shown when it failed; all are in a file.
const KEPT_LINES: usize = 400;

/// How a guest came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// All payloads ran, and nothing was lost.
    Completed,
    /// It was not booted.
    NotRun,
    /// The kernel found a fault in itself.
    Panicked,
    /// It was switched off after its time, or when it had said nothing for long.
    TimedOut,
    /// It went off before all was run.
    Stopped,
    /// All was run, but lines of the result port are missing.
    Garbled,
}

/// What a payload says about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// As exact as it is said to be.
    Pass,
    /// Not so.
    Fail,
    /// The kernel cannot show it, or nothing was said about it.
    Missing,
}

/// A line `SIGNAL <name> method=<m> exactness=<e> result=<pass|fail|missing> [detail]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Signal {
    /// The kernel's name for it.
    pub(crate) name: String,
    /// How it was measured.
    pub(crate) method: String,
    /// How exact that is said to be.
    pub(crate) exactness: String,
    /// Whether it was.
    pub(crate) result: Verdict,
    /// Figures, or a reason.
    pub(crate) detail: String,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TestEnd {
    /// It passed.
    Ok,
    /// It failed.
    Failed,
    /// It was not run.
    Ignored,
}

/// A test of a libtest program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Test {
    /// Its path.
    pub(crate) name: String,
    /// How it ended.
    pub(crate) end: TestEnd,
    /// How long it ran, in seconds: since the end of the one before it, as they run one by one.
    pub(crate) seconds: f64,
}

/// The counts that a libtest program ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
    /// Tests that were not run.
    pub(crate) ignored: u64,
}

/// What a payload did on one kernel.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PayloadReport {
    /// The program's file name.
    pub(crate) name: String,
    /// How it ended, in words; empty when it did not.
    pub(crate) end: String,
    /// Whether it ended with exit code 0.
    pub(crate) succeeded: bool,
    /// How long it ran.
    pub(crate) seconds: f64,
    /// Its tests, in order, if it is a libtest program.
    pub(crate) tests: Vec<Test>,
    /// Its own counts, if it is a libtest program that came to its end.
    pub(crate) summary: Option<Summary>,
    /// What it measured.
    pub(crate) signals: Vec<Signal>,
    /// Lines that start as a signal's does, and do not go on so.
    pub(crate) broken_signals: Vec<String>,
    /// Tests that had nothing to test on this kernel, and how that is known.
    pub(crate) absent: Vec<String>,
    /// Tests that failed in the first boot and passed in the second.
    pub(crate) flaky: Vec<String>,
    /// The last lines of its output.
    #[serde(skip)]
    pub(crate) output: std::collections::VecDeque<String>,
    #[serde(skip)]
    parser: parse::Parser,
    /// When the last test ended, or the payload began.
    #[serde(skip)]
    last_end: f64,
}

impl PayloadReport {
    /// A payload that did not run yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            name: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            end: String::new(),
            succeeded: false,
            seconds: 0.0,
            tests: Vec::new(),
            summary: None,
            signals: Vec::new(),
            broken_signals: Vec::new(),
            absent: Vec::new(),
            flaky: Vec::new(),
            output: std::collections::VecDeque::new(),
            parser: parse::Parser::default(),
            last_end: 0.0,
        }
    }

    /// It begins now, in seconds since power on.
    pub(crate) fn start(&mut self, now: f64) {
        self.last_end = now;
    }

    /// Takes a line of its output, and when it came, in seconds since power on.
    pub(crate) fn line(&mut self, stream: Stream, text: &str, now: f64) {
        if self.output.len() == KEPT_LINES {
            self.output.pop_front();
        }
        self.output.push_back(text.to_owned());
        if let (Stream::Report, Some(what)) = (stream, text.strip_prefix("ABSENT ")) {
            self.absent.push(what.to_owned());
            return;
        }
        match parse::signal(text) {
            // The same line may be printed and reported.
            Some(Ok(signal)) if self.signals.contains(&signal) => {}
            Some(Ok(signal)) => self.signals.push(signal),
            Some(Err(())) => self.broken_signals.push(text.to_owned()),
            None if stream == Stream::Out => match self.parser.line(text) {
                Some(parse::Line::Test(name, end)) => {
                    let seconds = now - self.last_end;
                    self.last_end = now;
                    self.tests.push(Test { name, end, seconds });
                }
                Some(parse::Line::Summary(summary)) => {
                    let all = self.summary.get_or_insert_default();
                    all.passed += summary.passed;
                    all.failed += summary.failed;
                    all.ignored += summary.ignored;
                }
                None => {}
            },
            None => {}
        }
    }

    /// Takes its end.
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of a run fit exactly"
    )]
    pub(crate) fn end(&mut self, cause: ExitCause, millis: u64) {
        self.end = cause.to_string();
        self.succeeded = cause == ExitCause::Code(0);
        self.seconds = millis as f64 / 1000.0;
    }

    /// Whether it ended well, every test passed, and every signal is what it should be.
    pub(crate) fn passed(&self) -> bool {
        self.succeeded
            && self.broken_signals.is_empty()
            && self.tests.iter().all(|test| test.end != TestEnd::Failed)
            && self.summary.is_none_or(|summary| summary.failed == 0)
            && self
                .signals
                .iter()
                .all(|signal| signal.result == Verdict::Pass)
    }

    /// What it did not do right, a line each.
    fn shortfalls(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.succeeded {
            let end = if self.end.is_empty() {
                "did not end"
            } else {
                &self.end
            };
            lines.push(format!("{}: {end}", self.name));
        }
        let failed = self.tests.iter().filter(|test| test.end == TestEnd::Failed);
        lines.extend(failed.map(|test| format!("{}: test {} failed", self.name, test.name)));
        let short = self
            .signals
            .iter()
            .filter(|signal| signal.result != Verdict::Pass);
        lines.extend(short.map(|signal| {
            let result = if signal.result == Verdict::Fail {
                "failed"
            } else {
                "missing"
            };
            format!(
                "{}: signal {} {result} {}",
                self.name, signal.name, signal.detail
            )
        }));
        let broken = self.broken_signals.iter();
        lines.extend(broken.map(|line| format!("{}: no valid signal line: {line}", self.name)));
        lines
    }
}

/// What came of one kernel.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KernelReport {
    /// Its name in the matrix.
    pub(crate) kernel: String,
    /// What `uname -r` says in it; empty when it did not come so far.
    pub(crate) release: String,
    /// Debian's version; empty for the host.
    pub(crate) package_version: String,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// Until our first process ran.
    pub(crate) boot_seconds: f64,
    /// Until it was off; of both boots, if there were two.
    pub(crate) wall_seconds: f64,
    /// Why it was booted a second time, if it was.
    pub(crate) booted_again: Option<String>,
    /// What the payloads did.
    pub(crate) payloads: Vec<PayloadReport>,
    /// Optional modules that this kernel does not have.
    pub(crate) missing_modules: Vec<String>,
    /// What could not be prepared.
    pub(crate) faults: Vec<String>,
    /// The kernel's own warnings: the lines that name their place.
    pub(crate) warnings: Vec<String>,
    /// Whether the kernel found a fault in itself.
    pub(crate) oops: bool,
    /// Lines of the result port that did not arrive whole.
    pub(crate) lost_lines: u64,
    /// Signals that other kernels have and this one said nothing about.
    pub(crate) unreported_signals: Vec<String>,
    /// The console's last lines, when the end was not a good one.
    pub(crate) console_tail: Vec<String>,
    /// Where the whole console is.
    pub(crate) console: PathBuf,
}

impl KernelReport {
    /// A kernel that did not boot yet.
    pub(crate) fn new(kernel: &str, payloads: Vec<PayloadReport>) -> Self {
        Self {
            kernel: kernel.to_owned(),
            release: String::new(),
            package_version: String::new(),
            outcome: Outcome::Stopped,
            boot_seconds: 0.0,
            wall_seconds: 0.0,
            booted_again: None,
            payloads,
            missing_modules: Vec::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
            oops: false,
            lost_lines: 0,
            unreported_signals: Vec::new(),
            console_tail: Vec::new(),
            console: PathBuf::new(),
        }
    }

    /// A kernel that could not be booted, and why.
    pub(crate) fn not_run(kernel: &str, error: &anyhow::Error) -> Self {
        let mut report = Self::new(kernel, Vec::new());
        report.outcome = Outcome::NotRun;
        report.faults.push(format!("{error:#}"));
        report
    }

    /// Takes from the console what the kernel says about itself.
    pub(crate) fn judge_console(&mut self, console: &str) {
        let verdict = parse::console(console);
        self.warnings = verdict.warnings;
        self.oops = verdict.oops;
    }

    /// All signals, of all payloads.
    pub(crate) fn signals(&self) -> impl Iterator<Item = &Signal> {
        self.payloads.iter().flat_map(|payload| &payload.signals)
    }

    /// Whether nothing falls short.
    pub(crate) fn passed(&self) -> bool {
        self.outcome == Outcome::Completed
            && self.faults.is_empty()
            && self.unreported_signals.is_empty()
            && self.payloads.iter().all(PayloadReport::passed)
    }

    /// What falls short, a line each.
    pub(crate) fn shortfalls(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self.outcome {
            Outcome::Completed => {}
            Outcome::NotRun => lines.push("the kernel was not booted".to_owned()),
            Outcome::Panicked => lines.push("the kernel panicked".to_owned()),
            Outcome::TimedOut => lines.push("the guest hung and was switched off".to_owned()),
            Outcome::Stopped => lines.push("the guest went off before all was run".to_owned()),
            Outcome::Garbled => lines.push(format!("{} result lines were lost", self.lost_lines)),
        }
        lines.extend(self.faults.iter().cloned());
        lines.extend(self.payloads.iter().flat_map(PayloadReport::shortfalls));
        let unreported = self.unreported_signals.iter();
        lines.extend(unreported.map(|name| format!("nothing was said about signal {name}")));
        lines
    }
}

/// What came of the whole matrix.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MatrixReport {
    /// Whether nothing falls short.
    pub(crate) passed: bool,
    /// From the first download to the last power-off.
    pub(crate) wall_seconds: f64,
    /// Kernels, oldest first.
    pub(crate) kernels: Vec<KernelReport>,
}

impl MatrixReport {
    /// Puts kernels together: a signal that one of them has is missing from those that are silent
    /// about it.
    pub(crate) fn new(mut kernels: Vec<KernelReport>, wall: Duration) -> Self {
        let names: BTreeSet<String> = kernels
            .iter()
            .flat_map(KernelReport::signals)
            .map(|s| s.name.clone())
            .collect();
        for kernel in &mut kernels {
            let said: BTreeSet<String> = kernel.signals().map(|s| s.name.clone()).collect();
            kernel.unreported_signals = names.difference(&said).cloned().collect();
        }
        let passed = kernels.iter().all(KernelReport::passed);
        Self {
            passed,
            wall_seconds: wall.as_secs_f64(),
            kernels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(name: &str, lines: &[&str]) -> KernelReport {
        let mut payload = PayloadReport::new(Path::new("/x/tests"));
        for line in lines {
            payload.line(Stream::Out, line, 0.0);
        }
        payload.end(ExitCause::Code(0), 1500);
        let mut kernel = KernelReport::new(name, vec![payload]);
        kernel.outcome = Outcome::Completed;
        kernel
    }

    fn matrix(kernels: Vec<KernelReport>) -> MatrixReport {
        MatrixReport::new(kernels, Duration::from_secs(1))
    }

    const GOOD: &str = "SIGNAL ListenDrops method=fentry exactness=exact result=pass 12 = 12";

    #[test]
    fn all_has_to_be_well() {
        assert!(matrix(vec![kernel("a", &[GOOD]), kernel("b", &[GOOD])]).passed);
        for line in [
            "SIGNAL ListenDrops method=poll exactness=exact result=fail",
            "SIGNAL ListenDrops method=none exactness=none result=missing no BTF",
            "SIGNAL ListenDrops",
            "test a::b ... FAILED",
            "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            assert!(!matrix(vec![kernel("a", &[line])]).passed, "{line}");
        }
    }

    #[test]
    fn silence_about_a_signal_is_a_shortfall() {
        let report = matrix(vec![kernel("a", &[GOOD]), kernel("b", &[])]);
        assert!(!report.passed);
        assert_eq!(report.kernels[1].unreported_signals, ["ListenDrops"]);
        assert!(report.kernels[0].unreported_signals.is_empty());
    }

    #[test]
    fn a_bad_end_is_a_shortfall() {
        for outcome in [
            Outcome::Panicked,
            Outcome::TimedOut,
            Outcome::Stopped,
            Outcome::Garbled,
        ] {
            let mut kernel = kernel("a", &[GOOD]);
            kernel.outcome = outcome;
            assert!(!matrix(vec![kernel]).passed, "{outcome:?}");
        }
        let mut silent = kernel("a", &[]);
        silent.payloads[0].end(ExitCause::TimedOut, 1);
        assert_eq!(silent.shortfalls(), ["tests: timed out"]);
    }

    #[test]
    fn a_signal_that_is_printed_and_reported_counts_once() {
        let mut kernel = kernel("a", &[GOOD]);
        kernel.payloads[0].line(Stream::Report, GOOD, 0.0);
        assert_eq!(kernel.signals().count(), 1);
    }
}
