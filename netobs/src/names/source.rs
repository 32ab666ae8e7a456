//! One source: what it said, and how it does.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Error;
use super::table::{Pod, Table};
use crate::ledger::owner::PodName;
use crate::sys::cgroup::Workload;

/// Workloads without a name that were asked for since the source last spoke. Past that, more of
/// them say nothing new.
const MISSED_LIMIT: usize = 1024;

/// How a source does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceStatus {
    /// `cri` or `kubernetes`.
    pub source: &'static str,
    /// Whether it answered when last asked.
    pub up: bool,
    /// Containers and pods that have a name by it, those just gone included.
    pub names: usize,
    /// Names that were left out: too many, or such as no pod can have.
    pub refused: u64,
    /// Questions that failed so far.
    pub failures: u64,
    /// Why the last one failed; empty when it did not.
    pub reason: String,
}

/// What a source said, for those who ask, and what they miss, for it.
#[derive(Debug)]
pub(super) struct Source {
    table: Mutex<Table>,
    health: Mutex<SourceStatus>,
    missed: Mutex<HashSet<Workload>>,
    wanted: Notify,
}

impl Source {
    pub(super) fn new(source: &'static str) -> Self {
        Self {
            table: Mutex::default(),
            health: Mutex::new(SourceStatus {
                source,
                up: false,
                names: 0,
                refused: 0,
                failures: 0,
                reason: String::new(),
            }),
            missed: Mutex::default(),
            wanted: Notify::new(),
        }
    }

    pub(super) fn lookup(&self, workload: Workload, now: Instant) -> Option<Arc<PodName>> {
        lock(&self.table).lookup(workload, now).cloned()
    }

    /// Notes that a name is missing. The source is woken the first time only: a container of
    /// somebody else's has no name however often it is asked for.
    pub(super) fn miss(&self, workload: Workload) {
        let mut missed = lock(&self.missed);
        if missed.len() < MISSED_LIMIT && missed.insert(workload) {
            self.wanted.notify_one();
        }
    }

    /// Waits until a name is missing that was not before.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// It said which pods there are.
    pub(super) fn replace(&self, pods: &[Pod]) {
        lock(&self.table).replace(pods, Instant::now());
        let mut missed = lock(&self.missed);
        // Full of what no source knows: forgotten, so that new ones are noticed again.
        if missed.len() >= MISSED_LIMIT {
            missed.clear();
        }
        drop(missed);
        self.works();
    }

    /// It told of a pod.
    pub(super) fn insert(&self, pod: &Pod) {
        lock(&self.table).insert(pod, Instant::now());
    }

    /// It told of a pod's end.
    pub(super) fn remove(&self, key: &str) {
        lock(&self.table).remove(key, Instant::now());
    }

    /// It answered.
    pub(super) fn works(&self) {
        let mut health = lock(&self.health);
        if !health.up {
            info!(source = health.source, "names of pods can be had");
        }
        health.up = true;
        health.reason.clear();
    }

    /// It did not. Said once, until it works again.
    pub(super) fn failed(&self, error: &Error) {
        let reason = chain(error);
        let mut health = lock(&self.health);
        if health.up || health.failures == 0 {
            warn!(
                source = health.source,
                reason, "names of pods cannot be had; known ones stay, and it is tried again"
            );
        }
        health.up = false;
        health.failures += 1;
        health.reason = reason;
        drop(health);
        lock(&self.table).sweep(Instant::now());
    }

    pub(super) fn status(&self) -> SourceStatus {
        let (names, refused) = {
            let table = lock(&self.table);
            (table.len(), table.refused())
        };
        SourceStatus {
            names,
            refused,
            ..lock(&self.health).clone()
        }
    }
}

/// The error and its causes in one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Tables and flags are valid at every step, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
