//! Evidence for a diagnosis: the same eyes as the agent's, for a while, without serving anything.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;

use super::{Agent, Failure, LOOK_INTERVAL, paths::PathProbes};
use crate::{
    audit::{
        self, Selection,
        collect::{Collector, Options, host_root},
    },
    config::Config,
    diagnose::{Evidence, NotSeen, Observed, Place, Snapshot, Source},
    ledger::stories::Story,
    sys::clock::ClockPair,
};

/// How often namespaces are looked for.
const DISCOVERY: Duration = Duration::from_secs(2);

/// Attaches, watches for `duration` or until `goes_on`, which is told how much time has passed ten
/// times a second, says no, and detaches. The configuration's path probes are measured meanwhile.
///
/// # Errors
///
/// When nothing at all can be observed, with a hint what to do about it.
pub fn watch(
    config: &Config,
    duration: Duration,
    mut goes_on: impl FnMut(Duration) -> bool,
) -> Result<Evidence, Failure> {
    let proc_root = Path::new("/proc");
    let collector = Collector::new(Options {
        proc_root: proc_root.to_owned(),
        root: host_root(proc_root),
        ..Options::default()
    });
    let mut not_seen = Vec::new();
    let mut no_audit = |error: &dyn std::error::Error| {
        not_seen.push(NotSeen {
            what: "settings".to_owned(),
            why: crate::probes::chain(error),
        });
    };
    let baseline = collector
        .baseline()
        .inspect_err(|error| no_audit(error))
        .ok();
    let mut agent = Agent::start(config)?;
    // What lies before the window is told to somebody who forgets it.
    agent.history.observed = Some(Observed::default());
    let mut paths = PathProbes::new(config.path_probes.clone());
    agent.tell_probes(paths.sockets());
    agent.gather();
    agent.history.observed = Some(Observed::default());
    let before = agent.with_view(Snapshot::of);
    let mut no_path = Vec::new();
    if let Err(error) = paths.start(true) {
        no_path.push(NotSeen {
            what: "paths".to_owned(),
            why: crate::probes::chain(&error),
        });
    }
    let begun = Instant::now();
    let begun_ns = ClockPair::sample().map_or(0, |now| now.monotonic_ns);
    let mut discovered = begun;
    while begun.elapsed() < duration && goes_on(begun.elapsed()) {
        let left = duration.saturating_sub(begun.elapsed());
        std::thread::sleep(left.min(LOOK_INTERVAL));
        agent.look();
        if discovered.elapsed() >= DISCOVERY {
            discovered = Instant::now();
            agent.discover();
        }
    }
    let book = paths.book();
    drop(paths);
    let (measured, unmeasured) = book.seen();
    no_path.extend(unmeasured.into_iter().map(|target| NotSeen {
        what: target,
        why: "no measurement came to an end in this time".to_owned(),
    }));
    agent.gather();
    let window = begun.elapsed();
    let clock = ClockPair::sample();
    let after = agent.with_view(Snapshot::of);
    let asked = agent.listen_arguments();
    let mut places = BTreeMap::new();
    let audit = collector
        .snapshot(baseline.as_ref())
        .map(|mut machine| {
            machine.take_listen_arguments(&asked);
            places = Place::all(&machine);
            audit::audit(&machine, &Selection::default())
        })
        .inspect_err(|error| no_audit(error))
        .ok();
    not_seen.extend(no_path);
    let of_window = |story: &Story| story.until_ns >= begun_ns;
    Ok(Evidence {
        source: Source::Watched,
        window,
        until_ns: clock.map_or(0, |now| now.wall_ns),
        before,
        after,
        observed: agent.history.observed.take().unwrap_or_default(),
        stories: agent.stories().matching(usize::MAX, of_window),
        audit,
        places,
        paths: measured,
        not_seen,
        clock,
        zone: Some(TimeZone::system()),
        ..Evidence::default()
    })
}
