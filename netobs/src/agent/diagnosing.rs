//! Evidence for a diagnosis: the same eyes as the agent's, for a while, without serving anything.

use std::{
    collections::BTreeMap,
    io, mem,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;
use tracing::info;

use super::{
    Agent, Watch,
    paths::{PathProbes, SLACK_OF_A_MEASUREMENT},
};
use crate::{
    audit::{
        self, Selection,
        collect::{Collector, Options, host_root},
    },
    config,
    diagnose::{Evidence, NotSeen, Observed, Place, Snapshot, Source},
    ledger::stories::Story,
    sys::clock::{self, ClockPair},
};

/// How often namespaces are looked for.
const DISCOVERY: Duration = Duration::from_secs(2);

/// The beginning of a time that is to be judged.
pub(super) struct Window {
    begun: Instant,
    /// CLOCK_MONOTONIC.
    begun_ns: u64,
    pub(super) books: Snapshot,
}

impl Window {
    /// Begins now, with these books.
    pub(super) fn begin(books: Snapshot) -> Self {
        Self {
            begun: Instant::now(),
            begun_ns: clock::monotonic_ns(),
            books,
        }
    }

    /// How long it has lasted.
    pub(super) fn length(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What the agent has seen in it until now, when the books are `after`. Takes its own books and
    /// what events told.
    pub(super) fn evidence(&mut self, agent: &mut Agent, after: Snapshot) -> Evidence {
        let clock = ClockPair::sample();
        let of_window = |story: &Story| story.until_ns >= self.begun_ns;
        Evidence {
            source: Source::Watched,
            window: self.length(),
            until_ns: clock.map_or(0, |now| now.wall_ns),
            before: mem::take(&mut self.books),
            after,
            observed: agent.history.observed.take().unwrap_or_default(),
            stories: agent.stories().matching(usize::MAX, of_window),
            clock,
            ..Evidence::default()
        }
    }
}

impl Agent {
    /// Watches for as long as `watch` says, and until each path has been measured once; or until a
    /// signal. `progress` is told how much time has passed, ten times
    /// a second.
    ///
    /// # Errors
    ///
    /// When the kernel does not let it wait.
    pub fn witness(
        mut self,
        wanted: config::PathProbes,
        watch: &Watch<'_>,
        mut progress: impl FnMut(Duration),
    ) -> io::Result<Evidence> {
        let proc_root = Path::new("/proc");
        let collector = Collector::new(Options {
            proc_root: proc_root.to_owned(),
            root: host_root(proc_root),
            ..Options::default()
        });
        let mut not_seen = Vec::new();
        let mut missing = |what: &str, error: &dyn std::error::Error| {
            not_seen.push(NotSeen {
                what: what.to_owned(),
                why: crate::probes::chain(error),
            });
        };
        let baseline = collector
            .baseline()
            .inspect_err(|error| missing("settings", error))
            .ok();
        // What lies before the window is told to somebody who forgets it.
        self.history.observed = Some(Observed::default());
        let mut targets = wanted.targets.len();
        let patience = wanted.first_round() + SLACK_OF_A_MEASUREMENT;
        let mut paths = PathProbes::new(wanted);
        self.tell_probes(paths.sockets());
        self.gather();
        self.history.observed = Some(Observed::default());
        let mut window = Window::begin(self.with_view(Snapshot::of));
        if let Err(error) = paths.start(true) {
            missing("paths", &error);
            targets = 0;
        }
        let book = paths.book();
        info!("watching");
        let mut discovered = Instant::now();
        let enough = |agent: &mut Self| {
            let passed = window.length();
            progress(passed);
            if discovered.elapsed() >= DISCOVERY {
                discovered = Instant::now();
                agent.discover();
            }
            let due = watch.duration.is_some_and(|duration| passed >= duration);
            if due && (book.measured() >= targets || passed >= patience) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        self.watch_with(
            &Watch {
                duration: None,
                ..*watch
            },
            enough,
        )?;
        drop(paths);
        let (measured, unmeasured) = book.seen();
        self.gather();
        let after = self.with_view(Snapshot::of);
        let asked = self.listen_arguments();
        let mut places = BTreeMap::new();
        let audit = collector
            .snapshot(baseline.as_ref())
            .map(|mut machine| {
                machine.take_listen_arguments(&asked);
                places = Place::all(&machine);
                audit::audit(&machine, &Selection::default())
            })
            .inspect_err(|error| missing("settings", error))
            .ok();
        not_seen.extend(unmeasured.into_iter().map(|target| NotSeen {
            what: target,
            why: "no measurement came to an end in this time".to_owned(),
        }));
        Ok(Evidence {
            audit,
            places,
            paths: measured,
            not_seen,
            zone: Some(TimeZone::system()),
            ..window.evidence(&mut self, after)
        })
    }
}
