//! The sysctl auditor inside the agent: once a minute, on a thread of its own.
//!
//! Evidence is counted since the agent's start, so a finding that hurts shows what it has cost so
//! far, not what it cost in the last minute.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use tracing::{debug, warn};

use crate::audit::{
    self, Selection,
    collect::{Baseline, Collector, Options, host_root},
    metrics::AuditMetrics,
};

/// Settings change by hand, and seldom.
const INTERVAL: Duration = Duration::from_secs(60);

/// The auditor, ready to run.
pub struct Auditor {
    collector: Collector,
    baseline: Option<Baseline>,
    metrics: AuditMetrics,
    ignored: Ignored,
}

/// Ids of rules whose findings are not exposed. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Ignored(Arc<Mutex<Vec<String>>>);

impl Ignored {
    /// From the next audit on, these.
    pub fn set(&self, ids: Vec<String>) {
        *self.ids() = ids;
    }

    fn has(&self, id: &str) -> bool {
        self.ids().iter().any(|ignored| ignored == id)
    }

    fn ids(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running auditor; it ends when this is dropped.
pub struct Auditing {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Auditor {
    /// Asks the kernel for its defaults and begins the window of evidence. To be called before
    /// rights are given up: the defaults are those of a namespace made for a moment.
    #[must_use]
    pub fn prepare() -> Self {
        let proc_root = Path::new("/proc");
        let collector = Collector::new(Options {
            proc_root: proc_root.to_owned(),
            root: host_root(proc_root),
            ..Options::default()
        });
        let baseline = collector
            .baseline()
            .inspect_err(|error| {
                warn!(
                    error = error as &dyn std::error::Error,
                    "no evidence for the auditor"
                );
            })
            .ok();
        // The thread that visits namespaces must not outlive the rights it was made with.
        collector.rest();
        Self {
            collector,
            baseline,
            metrics: AuditMetrics::default(),
            ignored: Ignored::default(),
        }
    }

    /// The families that it fills.
    #[must_use]
    pub fn metrics(&self) -> &AuditMetrics {
        &self.metrics
    }

    /// Which findings it leaves out.
    #[must_use]
    pub fn ignored(&self) -> Ignored {
        self.ignored.clone()
    }

    /// Begins to audit.
    ///
    /// # Errors
    ///
    /// When no thread can be had.
    pub fn start(self) -> std::io::Result<Auditing> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("auditor".to_owned())
            .spawn(move || self.run(&stopped))?;
        Ok(Auditing {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn run(self, stopped: &Receiver<()>) {
        loop {
            match self.collector.snapshot(self.baseline.as_ref()) {
                Ok(machine) => {
                    let mut report = audit::audit(&machine, &Selection::default());
                    report
                        .findings
                        .retain(|finding| !self.ignored.has(finding.id));
                    let folded = self.metrics.fill(&machine, &report);
                    debug!(findings = report.findings.len(), ?folded, "audited");
                }
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    "the settings cannot be audited; trying again in a minute"
                ),
            }
            match stopped.recv_timeout(INTERVAL) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

impl Drop for Auditing {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported by then.
            let _ = thread.join();
        }
    }
}
