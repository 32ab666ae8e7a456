//! Path probes inside the agent: on a thread and a runtime of their own, beside the event path.
//!
//! ```text
//! configuration -> PathProbes --watch--> thread: one task a target -> path::measure
//!                                          slots, back-off                |
//!                       events of its sockets (ProbeSockets) <-----------+
//!                                          |                             v
//!                                          +-> story -> log, PathBook -> /metrics, /health/network
//! ```

mod events;
mod health;
mod runner;
mod schedule;

use std::{
    io,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use tokio::sync::watch;
use tracing::{info, warn};

pub use self::events::ProbeSockets;
use self::runner::Runner;
pub(super) use self::runner::SLACK_OF_A_MEASUREMENT;
use crate::{
    config::PathProbes as Wanted,
    diagnose::PathSeen,
    ledger::paths::{PathBook, PathTarget},
    metrics,
    sys::hardening::{Set, lower_this_thread},
};

/// The book, shared by the thread that fills it and those who read it.
#[derive(Clone, Debug, Default)]
pub struct SharedBook(Arc<Mutex<PathBook>>);

impl SharedBook {
    fn lock(&self) -> MutexGuard<'_, PathBook> {
        // Its counts are valid at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the network is healthy as far as it is measured, and the particulars as JSON.
    #[must_use]
    pub fn health(&self) -> (bool, serde_json::Value) {
        let book = self.lock();
        let health = health::health(&book, Instant::now());
        // Numbers and text: there is nothing in it that JSON cannot hold.
        let json = serde_json::to_value(&health).unwrap_or_default();
        (health.is_healthy(), json)
    }
}

impl SharedBook {
    /// How many targets have been measured.
    pub(super) fn measured(&self) -> usize {
        let book = self.lock();
        book.current().filter(|(_, it)| it.measurements > 0).count()
    }

    /// What has been measured so far; and what has not been yet, by name.
    pub(super) fn seen(&self) -> (Vec<PathSeen>, Vec<String>) {
        let book = self.lock();
        let (measured, not): (Vec<_>, Vec<_>) =
            book.current().partition(|(_, it)| it.measurements > 0);
        let seen = |(name, target): (&str, &PathTarget)| PathSeen::of(name, target);
        let not = not.into_iter().map(|(name, _)| name.to_owned());
        (measured.into_iter().map(seen).collect(), not.collect())
    }
}

impl Collector for SharedBook {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        metrics::encode_paths(&self.lock(), &mut encoder)
    }
}

/// The path probes of the agent; dropping it ends them.
#[derive(Debug)]
pub struct PathProbes {
    wanted: watch::Sender<Wanted>,
    book: SharedBook,
    sockets: Arc<ProbeSockets>,
    /// Whether the system call filter lets probes open sockets.
    possible: bool,
    thread: Option<JoinHandle<()>>,
}

impl PathProbes {
    /// Those that `wanted` names. Nothing is measured before [`Self::start`].
    #[must_use]
    pub fn new(wanted: Wanted) -> Self {
        let possible = !wanted.targets.is_empty();
        let netns = std::fs::metadata("/proc/self/ns/net")
            .map_or(0, |it| u32::try_from(it.ino()).unwrap_or(0));
        Self {
            wanted: watch::Sender::new(wanted),
            book: SharedBook::default(),
            sockets: Arc::new(ProbeSockets::new(netns)),
            possible,
            thread: None,
        }
    }

    /// Whether there is anything to measure: the system call filter has to allow it then.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        self.possible
    }

    /// What they find.
    #[must_use]
    pub fn book(&self) -> SharedBook {
        self.book.clone()
    }

    /// Where the event path leaves the events of their sockets.
    #[must_use]
    pub fn sockets(&self) -> Arc<ProbeSockets> {
        Arc::clone(&self.sockets)
    }

    /// Begins to measure, once rights are given up: it needs none. `possible` tells whether sockets
    /// can still be opened. Without a target nothing is started.
    ///
    /// # Errors
    ///
    /// When no thread or runtime can be had.
    pub fn start(&mut self, possible: bool) -> io::Result<()> {
        self.possible = possible;
        if self.wanted.borrow().targets.is_empty() {
            return Ok(());
        }
        self.begin()
    }

    fn begin(&mut self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let wanted = self.wanted.subscribe();
        let (book, sockets) = (self.book.clone(), Arc::clone(&self.sockets));
        let work = move || {
            if let Err(error) = lower_this_thread(Set::default()) {
                warn!(%error, "path probes keep rights that they do not need");
            }
            runtime.block_on(Runner::new(book, sockets).run(wanted));
        };
        let thread = std::thread::Builder::new().name("path-probes".to_owned());
        self.thread = Some(thread.spawn(work)?);
        Ok(())
    }

    /// Measures these targets from now on. Targets that stay as they were go on without a break, and
    /// every name keeps its counts.
    pub fn reload(&mut self, wanted: &Wanted) {
        if !self.possible && !wanted.targets.is_empty() {
            warn!(
                targets = wanted.targets.len(),
                "no target was configured at the start, so the system call filter lets none be \
                 measured: restart the agent"
            );
            return;
        }
        let changed = self.wanted.send_if_modified(|current| {
            let changed = current != wanted;
            if changed {
                current.clone_from(wanted);
            }
            changed
        });
        if changed {
            info!(targets = wanted.targets.len(), "path probes: new targets");
        }
        if changed
            && self.thread.is_none()
            && let Err(error) = self.begin()
        {
            warn!(%error, "failed to start the path probes");
        }
    }
}

impl Drop for PathProbes {
    fn drop(&mut self) {
        // The end of the channel is the thread's sign to end.
        self.wanted = watch::Sender::new(Wanted::default());
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported by then.
            let _ = thread.join();
        }
    }
}
