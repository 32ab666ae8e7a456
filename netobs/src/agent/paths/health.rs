//! `/health/network`: what the last measurements say, target by target and phase by phase.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::{
    ledger::paths::{PathBook, PathTarget},
    path::{Failure, KernelFact, Measurement, Phase, seconds},
};

/// The whole answer.
#[derive(Serialize)]
pub(super) struct Health<'a> {
    status: Status,
    targets: Vec<Target<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Healthy,
    Degraded,
    /// Not measured yet.
    Unknown,
}

#[derive(Serialize)]
struct Target<'a> {
    target: &'a str,
    status: Status,
    /// Whether it is asked less often, for it has failed several times.
    backing_off: bool,
    measurements: u64,
    /// When the last measurement began.
    time: Option<&'a str>,
    /// How long ago it ended.
    age_seconds: Option<u64>,
    phases: Vec<PhaseHealth>,
    failure: Option<&'a Failure>,
    story: &'a [String],
    kernel: &'a [KernelFact],
    certificate_expires_unix_seconds: Option<u64>,
}

#[derive(Serialize)]
struct PhaseHealth {
    phase: &'static str,
    status: Status,
    #[serde(serialize_with = "seconds")]
    seconds: Duration,
    /// Why it is degraded: `failed` or `slow`.
    reason: Option<&'static str>,
}

impl Health<'_> {
    /// Degraded when any target is; a target that has not been measured yet is no evidence.
    pub(super) fn is_healthy(&self) -> bool {
        self.status == Status::Healthy
    }
}

/// Reads the book.
pub(super) fn health(book: &PathBook, now: Instant) -> Health<'_> {
    let targets: Vec<Target<'_>> = book
        .current()
        .map(|(name, target)| of_target(name, target, now))
        .collect();
    let degraded = targets.iter().any(|it| it.status == Status::Degraded);
    Health {
        status: if degraded {
            Status::Degraded
        } else {
            Status::Healthy
        },
        targets,
    }
}

fn of_target<'a>(name: &'a str, target: &'a PathTarget, now: Instant) -> Target<'a> {
    let last = target.last.as_ref();
    let measurement = last.map(|(measurement, _)| measurement);
    let phases = measurement.map_or_else(Vec::new, |it| phases(it, target));
    let degraded = measurement.is_some_and(|it| !it.success)
        || phases.iter().any(|it| it.status == Status::Degraded);
    Target {
        target: name,
        status: match measurement {
            None => Status::Unknown,
            Some(_) if degraded => Status::Degraded,
            Some(_) => Status::Healthy,
        },
        backing_off: target.open,
        measurements: target.measurements,
        time: measurement.map(|it| it.time.as_str()),
        age_seconds: last.map(|(_, at)| now.saturating_duration_since(*at).as_secs()),
        phases,
        failure: measurement.and_then(|it| it.failure.as_ref()),
        story: measurement.map_or(&[], |it| it.story.as_slice()),
        kernel: measurement.map_or(&[], |it| it.kernel.as_slice()),
        certificate_expires_unix_seconds: target.certificate_expiry,
    }
}

fn phases(measurement: &Measurement, target: &PathTarget) -> Vec<PhaseHealth> {
    let failed = measurement.failure.as_ref().map(|failure| failure.phase);
    let health = |phase, seconds: Duration, failed: bool, limit: Option<Duration>| {
        let slow = limit.is_some_and(|limit| seconds >= limit);
        let reason = match (failed, slow) {
            (true, _) => Some("failed"),
            (false, true) => Some("slow"),
            (false, false) => None,
        };
        PhaseHealth {
            phase,
            status: reason.map_or(Status::Healthy, |_| Status::Degraded),
            seconds,
            reason,
        }
    };
    let reached = Phase::ALL.into_iter().zip(target.slow.phases);
    let mut phases: Vec<PhaseHealth> = reached
        .filter_map(|(phase, limit)| {
            let time = measurement.phases.get(phase)?;
            Some(health(phase.name(), time, failed == Some(phase), limit))
        })
        .collect();
    let total = measurement.phases.total;
    phases.push(health("total", total, false, target.slow.total));
    phases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{ErrorType, Plan, Slow};

    #[test]
    fn slow_and_failed_phases_are_degraded() {
        let now = Instant::now();
        let mut book = PathBook::default();
        let slow = Slow::default();
        book.set(
            ["fine", "slow", "failed", "new"].map(|name| (name, slow)),
            now,
        );
        let healthy = health(&book, now);
        assert!(healthy.is_healthy());
        let measured = |name: &str, dns: u64| {
            let mut it = Measurement::blank(&Plan::new("dns:a".parse().unwrap()), 1);
            name.clone_into(&mut it.target);
            it.success = true;
            it.phases.dns = Some(Duration::from_millis(dns));
            it
        };
        book.record(measured("fine", 3), 0, false, now);
        assert!(health(&book, now).is_healthy());
        book.record(measured("slow", 3200), 0, false, now);
        let mut failed = measured("failed", 3);
        failed.success = false;
        failed.failure = Some(Failure {
            phase: Phase::Dns,
            error_type: ErrorType::NoSuchName,
            message: "x".to_owned(),
        });
        book.record(failed, 0, true, now);
        let json = serde_json::to_value(health(&book, now)).unwrap();
        assert_eq!(json["status"], "degraded");
        let of = |name: &str| {
            let mut all = json["targets"].as_array().unwrap().iter();
            all.find(|it| it["target"] == name).unwrap()
        };
        assert_eq!(of("fine")["status"], "healthy");
        assert_eq!(of("new")["status"], "unknown");
        assert_eq!(of("slow")["phases"][0]["reason"], "slow");
        assert_eq!(of("failed")["phases"][0]["reason"], "failed");
        assert_eq!(of("failed")["backing_off"], true);
        assert_eq!(of("failed")["failure"]["error_type"], "no_such_name");
    }
}
