//! A report as text: a line per kernel, then the matrix of signals, then what falls short.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Write};

use super::report::{KernelReport, MatrixReport, PayloadReport, TestEnd, Verdict};

/// How many tests are named as slow.
const SLOWEST: usize = 12;
/// Of less, nobody needs to know.
const SLOW: f64 = 1.0;

impl Display for MatrixReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&columns(&kernel_rows(self)))?;
        let signals = signal_rows(self);
        for table in [signals, slowest_rows(self)] {
            if table.len() > 1 {
                writeln!(f)?;
                f.write_str(&columns(&table))?;
            }
        }
        for kernel in &self.kernels {
            details(f, kernel)?;
        }
        let verdict = if self.passed { "passed" } else { "FAILED" };
        writeln!(f, "\nkernel matrix {verdict} in {:.1} s", self.wall_seconds)
    }
}

fn kernel_rows(report: &MatrixReport) -> Vec<Vec<String>> {
    let head = [
        "kernel", "release", "boot", "total", "passed", "failed", "ignored", "result",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for kernel in &report.kernels {
        let tests = || kernel.payloads.iter().flat_map(|payload| &payload.tests);
        let count = |end: TestEnd| tests().filter(|test| test.end == end).count().to_string();
        let release = if kernel.release.is_empty() {
            "(none)"
        } else {
            &kernel.release
        };
        rows.push(vec![
            kernel.kernel.clone(),
            release.to_owned(),
            format!("{:.1} s", kernel.boot_seconds),
            format!("{:.1} s", kernel.wall_seconds),
            count(TestEnd::Ok),
            count(TestEnd::Failed),
            count(TestEnd::Ignored),
            match (kernel.passed(), &kernel.booted_again) {
                (true, None) => "pass",
                (true, Some(_)) => "pass (2 boots)",
                (false, _) => "FAIL",
            }
            .to_owned(),
        ]);
    }
    rows
}

fn signal_rows(report: &MatrixReport) -> Vec<Vec<String>> {
    let names: BTreeSet<&str> = report
        .kernels
        .iter()
        .flat_map(KernelReport::signals)
        .map(|s| &*s.name)
        .collect();
    let mut head = vec!["signal".to_owned()];
    head.extend(report.kernels.iter().map(|kernel| kernel.kernel.clone()));
    let mut rows = vec![head];
    for name in names {
        let mut row = vec![name.to_owned()];
        row.extend(report.kernels.iter().map(|kernel| cell(kernel, name)));
        rows.push(row);
    }
    rows
}

/// The tests that took longest, with their seconds on each kernel.
fn slowest_rows(report: &MatrixReport) -> Vec<Vec<String>> {
    let tests = |kernel: &KernelReport| -> BTreeMap<String, f64> {
        let all = kernel.payloads.iter().flat_map(|payload| &payload.tests);
        all.map(|test| (test.name.clone(), test.seconds)).collect()
    };
    let kernels: Vec<_> = report.kernels.iter().map(tests).collect();
    let mut longest: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, seconds) in kernels.iter().flatten() {
        let most = longest.entry(name).or_default();
        *most = most.max(*seconds);
    }
    let mut order: Vec<_> = longest
        .into_iter()
        .filter(|(_, most)| *most >= SLOW)
        .collect();
    order.sort_by(|left, right| right.1.total_cmp(&left.1));
    let mut head = vec!["slowest tests (s)".to_owned()];
    head.extend(report.kernels.iter().map(|kernel| kernel.kernel.clone()));
    let mut rows = vec![head];
    for (name, _) in order.into_iter().take(SLOWEST) {
        let mut row = vec![name.to_owned()];
        row.extend(kernels.iter().map(|tests| {
            let seconds = tests.get(name);
            seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"))
        }));
        rows.push(row);
    }
    rows
}

/// The worst that the payloads say about a signal.
fn cell(kernel: &KernelReport, name: &str) -> String {
    let rank = |verdict: Verdict| match verdict {
        Verdict::Pass => 0,
        Verdict::Missing => 1,
        Verdict::Fail => 2,
    };
    let said = kernel.signals().filter(|signal| signal.name == name);
    match said.max_by_key(|signal| rank(signal.result)) {
        None => "(nothing said)".to_owned(),
        Some(signal) => {
            let result = match signal.result {
                Verdict::Pass => "pass",
                Verdict::Fail => "FAIL",
                Verdict::Missing => "MISSING",
            };
            format!("{} {} {result}", signal.method, signal.exactness)
        }
    }
}

fn details(f: &mut fmt::Formatter<'_>, kernel: &KernelReport) -> fmt::Result {
    let shortfalls = kernel.shortfalls();
    let absent = || kernel.payloads.iter().flat_map(|payload| &payload.absent);
    let flaky = || kernel.payloads.iter().flat_map(|payload| &payload.flaky);
    if shortfalls.is_empty()
        && kernel.booted_again.is_none()
        && kernel.warnings.is_empty()
        && kernel.missing_modules.is_empty()
        && absent().next().is_none()
    {
        return Ok(());
    }
    writeln!(f, "\n{}:", kernel.kernel)?;
    if let Some(why) = &kernel.booted_again {
        writeln!(f, "  booted a second time: {why}")?;
    }
    for test in flaky() {
        writeln!(
            f,
            "  flaky: {test} failed in the first boot and passed in the second"
        )?;
    }
    for line in absent() {
        writeln!(f, "  not on this kernel: {line}")?;
    }
    for line in shortfalls {
        writeln!(f, "  FAIL {line}")?;
    }
    for line in &kernel.warnings {
        writeln!(f, "  kernel: {line}")?;
    }
    if !kernel.missing_modules.is_empty() {
        writeln!(f, "  no module: {}", kernel.missing_modules.join(", "))?;
    }
    let told = |payload: &&PayloadReport| !payload.passed() || !payload.flaky.is_empty();
    for payload in kernel.payloads.iter().filter(told) {
        writeln!(f, "  last output of {}:", payload.name)?;
        // Of tests that passed there is nothing to say.
        let passed = |line: &str| line.starts_with("test ") && line.ends_with(" ... ok");
        for line in payload.output.iter().filter(|line| !passed(line)) {
            writeln!(f, "    {line}")?;
        }
    }
    if !kernel.console_tail.is_empty() {
        writeln!(f, "  end of the console ({}):", kernel.console.display())?;
        for line in &kernel.console_tail {
            writeln!(f, "    {line}")?;
        }
    }
    Ok(())
}

/// Left-aligned columns, as wide as their widest cell.
fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            // Writing to a string does not fail.
            let _ = write!(line, "{gap}{cell:<width$}", width = width(column));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::report::Outcome;
    use std::path::Path;
    use std::time::Duration;
    use vm_init::{ExitCause, Stream};

    fn kernel(name: &str, lines: &[&str]) -> KernelReport {
        let mut payload = PayloadReport::new(Path::new("tests"));
        lines
            .iter()
            .for_each(|line| payload.line(Stream::Out, line, 0.0));
        payload.end(ExitCause::Code(0), 10);
        let mut kernel = KernelReport::new(name, vec![payload]);
        kernel.outcome = Outcome::Completed;
        kernel.release = format!("{name}.9-cloud");
        kernel
    }

    #[test]
    fn shows_kernels_and_signals() {
        let report = MatrixReport::new(
            vec![
                kernel(
                    "5.10",
                    &[
                        "SIGNAL Drops method=fentry exactness=exact result=pass",
                        "test a ... ok",
                    ],
                ),
                kernel(
                    "6.1",
                    &["SIGNAL Drops method=poll exactness=sampled result=fail 1 of 2"],
                ),
            ],
            Duration::from_millis(2500),
        );
        let text = report.to_string();
        let expected = "\
kernel  release         boot   total  passed  failed  ignored  result
5.10    5.10.9-cloud    0.0 s  0.0 s  1       0       0        pass
6.1     6.1.9-cloud     0.0 s  0.0 s  0       0       0        FAIL

signal  5.10               6.1
Drops   fentry exact pass  poll sampled FAIL

6.1:
  FAIL tests: signal Drops failed 1 of 2
  last output of tests:
    SIGNAL Drops method=poll exactness=sampled result=fail 1 of 2

kernel matrix FAILED in 2.5 s
";
        let squeeze = |text: &str| {
            text.split(' ')
                .filter(|w| !w.is_empty())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(squeeze(&text), squeeze(expected));
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".to_owned(), "b".to_owned()],
            vec!["long".to_owned(), "c".to_owned()],
        ];
        assert_eq!(columns(&rows), "a     b\nlong  c\n");
    }
}
