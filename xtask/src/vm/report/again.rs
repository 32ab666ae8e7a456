//! When a guest is booted a second time, with what, and how both boots become one report.
//!
//! A guest that dies has usually met a fault of the emulator, whose processors race where code is
//! patched while it runs; what had not ended then runs in a second boot. A test that failed runs once
//! more as well: an emulated kernel may stand still for seconds, which is longer than some of TCP's
//! timers, and nothing in a test tells that from a fault. Neither is hidden: the report says that there
//! were two boots, why, and which tests passed only in the second. There is no third.

use super::{KernelReport, Outcome, PayloadReport, TestEnd};

/// With more failures than this there is no second boot: they are no chance.
const CHANCE: usize = 3;

/// What a payload is to run in a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Todo {
    /// Whatever it has: it is no libtest program, or nobody listed its tests.
    All,
    /// These tests.
    Tests(Vec<String>),
    /// Nothing: it is left out.
    Nothing,
}

impl KernelReport {
    /// What a second boot has to run, of what the first was given; `None` if there is nothing, or
    /// no point in it.
    pub(crate) fn left(&self, todo: &[Todo]) -> Option<Vec<Todo>> {
        let died = self.outcome != Outcome::Completed;
        let tests = || self.payloads.iter().flat_map(|payload| &payload.tests);
        let failed = tests().filter(|test| test.end == TestEnd::Failed).count();
        if failed > CHANCE {
            return None;
        }
        let left: Vec<Todo> = self
            .payloads
            .iter()
            .zip(todo)
            .map(|(payload, todo)| payload.left(todo, died))
            .collect();
        left.iter()
            .any(|todo| *todo != Todo::Nothing)
            .then_some(left)
    }

    /// A guest that dies when all is done has done all; only its power-off is wanting. The payloads that
    /// this boot ran are at these places.
    pub(crate) fn forgive_the_end(&mut self, places: &[usize]) {
        let passed = |place: &usize| self.payloads.get(*place).is_some_and(PayloadReport::passed);
        let died = !matches!(self.outcome, Outcome::Completed | Outcome::Garbled);
        if died && !places.is_empty() && places.iter().all(passed) {
            self.outcome = Outcome::Completed;
            let how = if self.oops { "panicked" } else { "hung" };
            self.warnings.push(format!("it {how} after the last test"));
        }
    }

    /// Why there is a second boot, and what it runs.
    pub(crate) fn why_again(&self, left: &[Todo]) -> String {
        let failed = self
            .payloads
            .iter()
            .flat_map(|payload| &payload.tests)
            .find(|test| test.end == TestEnd::Failed);
        let reason = match failed {
            Some(test) if self.outcome == Outcome::Completed => format!("{} failed", test.name),
            _ => self.shortfalls().into_iter().next().unwrap_or_default(),
        };
        let tests: usize = left
            .iter()
            .map(|todo| match todo {
                Todo::Tests(names) => names.len(),
                Todo::All | Todo::Nothing => 0,
            })
            .sum();
        match tests {
            0 => reason,
            1 => format!("{reason}; 1 test left"),
            _ => format!("{reason}; {tests} tests left"),
        }
    }

    /// Takes what the second boot came to, which was for `why`.
    pub(crate) fn and_again(mut self, second: Self, why: String) -> Self {
        for warning in &mut self.warnings {
            warning.insert_str(0, "first boot: ");
        }
        self.warnings.extend(second.warnings);
        for (first, second) in self.payloads.iter_mut().zip(second.payloads) {
            first.and_again(second);
        }
        self.booted_again = Some(why);
        self.outcome = second.outcome;
        self.oops = second.oops;
        self.lost_lines = second.lost_lines;
        self.wall_seconds += second.wall_seconds;
        self.faults.extend(second.faults);
        self.console_tail = second.console_tail;
        self.console = second.console;
        self
    }
}

impl PayloadReport {
    fn left(&self, todo: &Todo, died: bool) -> Todo {
        match todo {
            Todo::Nothing => Todo::Nothing,
            // Nothing says what of it was done.
            Todo::All if died => Todo::All,
            Todo::All => Todo::Nothing,
            Todo::Tests(names) => {
                let good = |name: &str| {
                    self.tests
                        .iter()
                        .any(|test| test.name == name && test.end != TestEnd::Failed)
                };
                let left: Vec<String> = names.iter().filter(|name| !good(name)).cloned().collect();
                if left.is_empty() {
                    Todo::Nothing
                } else {
                    Todo::Tests(left)
                }
            }
        }
    }

    fn and_again(&mut self, second: Self) {
        if second.end.is_empty() && second.tests.is_empty() {
            return; // Left out.
        }
        for test in second.tests {
            match self.tests.iter_mut().find(|known| known.name == test.name) {
                Some(known) => {
                    if known.end == TestEnd::Failed && test.end == TestEnd::Ok {
                        self.flaky.push(test.name.clone());
                    }
                    *known = test;
                }
                None => self.tests.push(test),
            }
        }
        for signal in second.signals {
            self.signals.retain(|known| known.name != signal.name);
            self.signals.push(signal);
        }
        for absent in second.absent {
            if !self.absent.contains(&absent) {
                self.absent.push(absent);
            }
        }
        self.broken_signals = second.broken_signals;
        self.end = second.end;
        self.succeeded = second.succeeded;
        self.seconds += second.seconds;
        self.summary = second.summary;
        // That of the first stays in its file, and what made a flaky test fail is wanted.
        self.output.extend(second.output);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vm_init::{ExitCause, Stream};

    use super::*;

    fn boot(lines: &[&str], outcome: Outcome, code: i32) -> KernelReport {
        let mut payload = PayloadReport::new(Path::new("/x/kernel"));
        for line in lines {
            payload.line(Stream::Out, line, 1.0);
        }
        if outcome == Outcome::Completed {
            payload.end(ExitCause::Code(code), 1000);
        }
        let mut report = KernelReport::new("6.12", vec![payload]);
        report.outcome = outcome;
        report.wall_seconds = 10.0;
        report
    }

    fn tests(names: &[&str]) -> Todo {
        Todo::Tests(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn what_a_dead_guest_had_not_ended_goes_on_in_another() {
        let todo = [tests(&["a", "b", "c"])];
        let first = boot(&["test a ... ok"], Outcome::Panicked, 0);
        let left = first.left(&todo).unwrap();
        assert_eq!(left, [tests(&["b", "c"])]);
        let why = first.why_again(&left);
        assert_eq!(why, "the kernel panicked; 2 tests left");
        let second = boot(&["test b ... ok", "test c ... ok"], Outcome::Completed, 0);
        let both = first.and_again(second, why);
        assert!(both.passed() && both.booted_again.is_some());
        assert_eq!(both.payloads[0].tests.len(), 3);
        assert!(both.payloads[0].flaky.is_empty());
        assert!((both.wall_seconds - 20.0).abs() < 1e-9);
    }

    #[test]
    fn a_failed_test_has_one_more_chance_and_is_named() {
        let todo = [tests(&["a", "b"])];
        let lines = ["test a ... ok", "test b ... FAILED"];
        let first = boot(&lines, Outcome::Completed, 101);
        let left = first.left(&todo).unwrap();
        assert_eq!(left, [tests(&["b"])]);
        assert_eq!(first.why_again(&left), "b failed; 1 test left");
        for (end, code) in [("ok", 0), ("FAILED", 101)] {
            let line = format!("test b ... {end}");
            let second = boot(&[&line], Outcome::Completed, code);
            let both = first.clone().and_again(second, String::new());
            assert_eq!(both.passed(), code == 0);
            assert_eq!(both.payloads[0].flaky.len(), usize::from(code == 0));
        }
    }

    #[test]
    fn there_is_no_second_boot_for_nothing_or_for_many_failures() {
        let good = boot(&["test a ... ok"], Outcome::Completed, 0);
        assert_eq!(good.left(&[tests(&["a"])]), None);
        let names = ["a", "b", "c", "d"];
        let lines = names.map(|name| format!("test {name} ... FAILED"));
        let bad = boot(&lines.each_ref().map(|l| &**l), Outcome::Completed, 101);
        assert_eq!(bad.left(&[tests(&names)]), None);
        let mut late = boot(&["test a ... ok"], Outcome::Completed, 0);
        late.outcome = Outcome::TimedOut;
        late.forgive_the_end(&[0]);
        assert!(late.passed() && late.warnings.len() == 1);
        // Of a payload that is no test program nothing is known.
        let silent = boot(&[], Outcome::TimedOut, 0);
        assert_eq!(silent.left(&[Todo::All]), Some(vec![Todo::All]));
    }
}
