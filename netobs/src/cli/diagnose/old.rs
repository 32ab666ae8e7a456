//! A diagnosis of what was recorded.

use std::{ops::ControlFlow, path::Path};

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    cli::past::{self, Request},
    diagnose::{Evidence, Past},
    recorder::{self, Range, Recorded},
};

/// Of a file or folder.
pub(super) fn of_files(path: &Path, range: Range) -> anyhow::Result<Evidence> {
    let mut reading = recorder::read(path, range)?;
    let mut past = Past::default();
    for recorded in &mut reading {
        take(&mut past, &recorded);
    }
    past::tell(reading.damage());
    Ok(evidence(past, range))
}

/// Of what a running agent has recorded.
pub(super) fn of_agent(request: &Request, range: Range) -> anyhow::Result<Evidence> {
    let mut past = Past::default();
    request.lines(|line| {
        if let Some(recorded) = line.recorded() {
            take(&mut past, &recorded);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let now = u64::try_from(Timestamp::now().as_nanosecond()).ok();
    let until_ns = range.until_ns.or(now);
    Ok(evidence(past, Range { until_ns, ..range }))
}

fn take(past: &mut Past, recorded: &Recorded) {
    let Recorded {
        wall_ns,
        context,
        event,
        workload,
    } = recorded;
    past.take(event, *wall_ns, *workload, *context);
}

fn evidence(past: Past, range: Range) -> Evidence {
    Evidence {
        zone: Some(TimeZone::system()),
        ..past.evidence(range.since_ns, range.until_ns)
    }
}
