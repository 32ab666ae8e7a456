//! Reads result lines, libtest's output and a kernel's console.

use super::{Signal, Summary, TestEnd, Verdict};

/// Warnings that are kept of one console.
const WARNINGS: usize = 20;

/// A signal's line; `Err` when it starts like one and goes on differently.
///
/// The line may stand behind something else: libtest writes `test name ... ` before a test's
/// output.
pub(super) fn signal(line: &str) -> Option<Result<Signal, ()>> {
    const WORD: &str = "SIGNAL ";
    let text = match line.strip_prefix(WORD) {
        Some(text) => text,
        None if line.starts_with("test ") => line.split_once(" ... SIGNAL ")?.1,
        None => return None,
    };
    Some(fields(text).ok_or(()))
}

fn fields(text: &str) -> Option<Signal> {
    let mut words = text.trim_end().splitn(5, ' ');
    let name = words
        .next()
        .filter(|name| !name.is_empty() && !name.contains('='))?;
    let mut field = |key: &str| {
        let value = words.next()?.strip_prefix(key)?.strip_prefix('=')?;
        (!value.is_empty()).then(|| value.to_owned())
    };
    let (method, exactness) = (field("method")?, field("exactness")?);
    let result = match &*field("result")? {
        "pass" => Verdict::Pass,
        "fail" => Verdict::Fail,
        "missing" => Verdict::Missing,
        _ => return None,
    };
    let detail = words.next().unwrap_or_default().trim().to_owned();
    Some(Signal {
        name: name.to_owned(),
        method,
        exactness,
        result,
        detail,
    })
}

/// What a line of libtest's says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A test ended: its name, and how.
    Test(String, TestEnd),
    /// All ended.
    Summary(Summary),
}

/// Remembers the test whose result is still to come: with `--nocapture` its output stands between
/// its name and its result.
#[derive(Clone, Debug, Default)]
pub(super) struct Parser {
    open: Option<String>,
}

impl Parser {
    /// Takes a line of standard output.
    pub(super) fn line(&mut self, line: &str) -> Option<Line> {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.open = None;
            return summary(counts).map(Line::Summary);
        }
        if let Some((name, rest)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        {
            let name = name.trim_end_matches(" - should panic").to_owned();
            return match end(rest) {
                Some(end) => Some(Line::Test(name, end)),
                None => {
                    self.open = Some(name);
                    None
                }
            };
        }
        let end = end(line)?;
        self.open.take().map(|name| Line::Test(name, end))
    }
}

fn end(text: &str) -> Option<TestEnd> {
    let word = text.split([' ', ',']).next()?;
    let whole = word == text.trim_end() || text.contains('<') || text.starts_with("ignored,");
    match word {
        "ok" if whole => Some(TestEnd::Ok),
        "FAILED" if whole => Some(TestEnd::Failed),
        "ignored" if whole => Some(TestEnd::Ignored),
        _ => None,
    }
}

fn summary(counts: &str) -> Option<Summary> {
    let (_, counts) = counts.split_once(". ")?;
    let count = |word: &str| {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
    };
    Some(Summary {
        passed: count("passed")?,
        failed: count("failed")?,
        ignored: count("ignored")?,
    })
}

/// What a kernel says about itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Console {
    /// Lines that begin a warning.
    pub(super) warnings: Vec<String>,
    /// Whether there was an oops or a panic.
    pub(super) oops: bool,
}

/// Looks for warnings and oopses.
pub(super) fn console(text: &str) -> Console {
    const OOPS: &[&str] = &[
        "Kernel panic - not syncing",
        "BUG: kernel NULL pointer",
        "BUG: unable to handle",
        "general protection fault",
        "Oops: ",
        "kernel BUG at",
    ];
    const WARNING: &[&str] = &[
        "WARNING: ",
        "BUG: ",
        "INFO: rcu",
        "INFO: task ",
        "possible deadlock",
        "UBSAN:",
        "KASAN:",
    ];
    let mut found = Console::default();
    for line in text.lines() {
        let message = match line.split_once("] ") {
            Some((time, message)) if time.starts_with('[') => message,
            _ => line,
        };
        found.oops |= OOPS.iter().any(|start| message.starts_with(start));
        let is_warning = WARNING.iter().any(|start| message.starts_with(start));
        if is_warning && found.warnings.len() < WARNINGS {
            found.warnings.push(message.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_lines() {
        let line = "SIGNAL ListenDrops method=fentry exactness=near_exact result=fail 3 of 4, late";
        let expected = Signal {
            name: "ListenDrops".into(),
            method: "fentry".into(),
            exactness: "near_exact".into(),
            result: Verdict::Fail,
            detail: "3 of 4, late".into(),
        };
        assert_eq!(signal(line), Some(Ok(expected.clone())));
        assert_eq!(signal(&format!("test a::b ... {line}")), Some(Ok(expected)));
        let short = signal("SIGNAL X method=m exactness=e result=missing")
            .unwrap()
            .unwrap();
        assert_eq!((short.result, &*short.detail), (Verdict::Missing, ""));
    }

    #[test]
    fn broken_signal_lines_are_not_overlooked() {
        for line in [
            "SIGNAL ",
            "SIGNAL X",
            "SIGNAL method=m exactness=e result=pass",
            "SIGNAL X exactness=e method=m result=pass",
            "SIGNAL X method=m exactness=e result=passed",
            "SIGNAL X method= exactness=e result=pass",
        ] {
            assert_eq!(signal(line), Some(Err(())), "{line}");
        }
        for line in ["SIGNALS X", "a SIGNAL X", "", "test a ... ok"] {
            assert_eq!(signal(line), None, "{line}");
        }
    }

    fn read(text: &str) -> (Vec<(String, TestEnd)>, Option<Summary>) {
        let mut parser = Parser::default();
        let (mut tests, mut counts) = (Vec::new(), None);
        for line in text.lines() {
            match parser.line(line) {
                Some(Line::Test(name, end)) => tests.push((name, end)),
                Some(Line::Summary(summary)) => counts = Some(summary),
                None => {}
            }
        }
        (tests, counts)
    }

    #[test]
    fn libtest_output() {
        let text = "\nrunning 5 tests\ntest a::one ... ok\ntest two ... FAILED\n\
            test three ... ignored, needs root\ntest four - should panic ... ok\n\
            test five ... ok <1.5s>\n\nfailures:\n    two\n\n\
            test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; \
            finished in 0.01s\n";
        let (tests, counts) = read(text);
        let expected = [
            ("a::one", TestEnd::Ok),
            ("two", TestEnd::Failed),
            ("three", TestEnd::Ignored),
            ("four", TestEnd::Ok),
            ("five", TestEnd::Ok),
        ];
        assert_eq!(tests, expected.map(|(name, end)| (name.to_owned(), end)));
        assert_eq!(
            counts,
            Some(Summary {
                passed: 3,
                failed: 1,
                ignored: 1
            })
        );
    }

    #[test]
    fn libtest_output_without_capture() {
        let text = "test a ... hello\nok then\nok\ntest b ... \nFAILED\nok\n";
        let (tests, counts) = read(text);
        let expected = [("a", TestEnd::Ok), ("b", TestEnd::Failed)];
        assert_eq!(tests, expected.map(|(name, end)| (name.to_owned(), end)));
        assert_eq!(counts, None);
    }

    #[test]
    fn consoles() {
        let text = "[    0.0] Linux version\n[    1.0] WARNING: CPU: 0 PID: 1 at net/x.c:1 f+0x1\n\
            [    2.0] a BUG: not at the start\n";
        let found = console(text);
        assert_eq!(
            found.warnings,
            ["WARNING: CPU: 0 PID: 1 at net/x.c:1 f+0x1"]
        );
        assert!(!found.oops);
        assert!(console("[    3.1] Kernel panic - not syncing: Attempted to kill init!").oops);
        assert!(console("[    3.1] BUG: kernel NULL pointer dereference, address: 8").oops);
    }
}
