//! Evidence for a diagnosis: the same eyes as the agent's, for a while, without serving anything.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{Agent, Failure, LOOK_INTERVAL};
use crate::{
    audit::{
        self, Selection,
        collect::{Collector, Options, host_root},
    },
    config::Config,
    diagnose::{Conntrack, Evidence, NotSeen, Peers, Snapshot},
};

/// How often namespaces are looked for.
const DISCOVERY: Duration = Duration::from_secs(2);

/// Attaches, watches for `duration` or until `goes_on`, which is told how much time has passed ten
/// times a second, says no, and detaches.
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
    agent.peers = Some(Peers::default());
    agent.gather();
    let before = agent.with_view(Snapshot::of);
    let begun = Instant::now();
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
    agent.gather();
    let window = begun.elapsed();
    let after = agent.with_view(Snapshot::of);
    let asked = agent.listen_arguments();
    let audit = collector
        .snapshot(baseline.as_ref())
        .map(|mut machine| {
            machine.take_listen_arguments(&asked);
            audit::audit(&machine, &Selection::default())
        })
        .inspect_err(|error| no_audit(error))
        .ok();
    Ok(Evidence {
        window,
        before,
        after,
        peers: agent.peers.take().unwrap_or_default(),
        audit,
        conntrack: Conntrack::read(proc_root),
        not_seen,
    })
}
