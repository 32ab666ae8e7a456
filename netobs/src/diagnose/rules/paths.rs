//! Paths that were measured while watching: which failed or was slow, in which phase, and what its
//! packets went through.

use super::{Rule, Sight};
use crate::{
    audit::finding::Severity,
    diagnose::{Evidence, Finding, evidence::PathSeen, finding::count},
    path::{ErrorType, Measurement, Phase, duration_text},
};

pub(super) const RULE: Rule = Rule {
    id: "paths",
    looks_at: "the paths given with --target",
    sight,
    judge,
};

fn sight(evidence: &Evidence) -> Sight {
    if evidence.paths.is_empty() {
        Sight::Nothing
    } else {
        Sight::Full
    }
}

fn judge(evidence: &Evidence) -> Vec<Finding> {
    evidence.paths.iter().filter_map(of_path).collect()
}

fn of_path(path: &PathSeen) -> Option<Finding> {
    let trouble = path.trouble.as_ref()?;
    let failed: u64 = path.failures.iter().map(|(_, _, times)| times).sum();
    let target = &path.target;
    let finding = if failed > 0 {
        let all = failed >= path.measurements;
        let severity = if all {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let share = format!("{failed} of {}", count(path.measurements, "measurement"));
        let summary = format!("{target} cannot be relied on from here: {share} failed");
        let mut finding = Finding::new("path-failing", severity, summary).events(failed);
        for (phase, error_type, times) in &path.failures {
            let words = ErrorType::ALL.iter().find(|(it, _)| it == error_type);
            let means = words.map_or("", |(_, means)| means.trim());
            let times = match times {
                1 => "once".to_owned(),
                times => format!("{times} times"),
            };
            finding = finding.seen(format!(
                "{times} in {}: {}. {means}",
                phase.name(),
                error_type.name()
            ));
        }
        finding
    } else {
        let share = format!(
            "{} of {}",
            path.slow,
            count(path.measurements, "measurement")
        );
        let summary = format!("{target} is slow from here: {share}");
        Finding::new("path-slow", Severity::Warning, summary).events(path.slow)
    };
    let finding = finding.seen(times(trouble));
    let finding = trouble.story.iter().fold(finding, |finding, sentence| {
        finding.because(sentence.as_str())
    });
    Some(finding.mend(format!("netobs probe --count 10 --interval 1s '{target}'")))
}

/// Where the time of the measurement went.
fn times(trouble: &Measurement) -> String {
    let phases = Phase::ALL.into_iter().filter_map(|phase| {
        let time = trouble.phases.get(phase)?;
        Some(format!("{} {}", phase.name(), duration_text(time)))
    });
    let phases: Vec<String> = phases.collect();
    let total = duration_text(trouble.phases.total);
    format!("the last such took {total}: {}", phases.join(", "))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{
        ledger::paths::PathBook,
        path::{Failure, Plan, Slow},
    };

    fn book(measurements: &[(u64, Option<ErrorType>)]) -> Vec<Finding> {
        let mut book = PathBook::default();
        let now = Instant::now();
        book.set([("a", Slow::default())], now);
        for (millis, error_type) in measurements {
            let mut it = Measurement::blank(&Plan::new("dns:a".parse().unwrap()), 1);
            "a".clone_into(&mut it.target);
            it.phases.dns = Some(Duration::from_millis(*millis));
            it.phases.total = Duration::from_millis(*millis);
            it.story = vec!["DNS took its time".to_owned()];
            it.success = error_type.is_none();
            it.failure = error_type.map(|error_type| Failure {
                phase: Phase::Dns,
                error_type,
                message: String::new(),
            });
            book.record(it, 0, false, now);
        }
        let paths = book.all().map(|(name, target)| PathSeen::of(name, target));
        let evidence = Evidence {
            paths: paths.collect(),
            ..Evidence::default()
        };
        judge(&evidence)
    }

    #[test]
    fn what_is_quick_and_fine_is_no_finding() {
        assert!(book(&[]).is_empty());
        assert!(book(&[(3, None), (999, None)]).is_empty());
    }

    #[test]
    fn slow_and_failing_paths_are_told_with_their_story() {
        let slow = book(&[(3, None), (3200, None), (4, None)]);
        assert_eq!((slow[0].id, slow[0].events), ("path-slow", 1));
        assert!(slow[0].evidence[0].contains("took 3.20 s: dns 3.20 s"));
        assert_eq!(slow[0].cause, ["DNS took its time"]);
        let some = book(&[(3, None), (5000, Some(ErrorType::TimedOut))]);
        assert_eq!(
            (some[0].id, some[0].severity),
            ("path-failing", Severity::Warning)
        );
        let all = book(&[(5000, Some(ErrorType::TimedOut)); 2]);
        assert_eq!((all[0].events, all[0].severity), (2, Severity::Critical));
        assert!(all[0].evidence[0].starts_with("2 times in dns: timed_out. It took"));
    }
}
