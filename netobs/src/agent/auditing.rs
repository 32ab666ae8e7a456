//! The sysctl auditor inside the agent, on a thread of its own: once a minute, and soon after a
//! setting changed or a namespace came or went.
//!
//! Evidence is counted since the agent's start, so a finding that hurts shows what it has cost so
//! far, not what it cost in the last minute.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tracing::{debug, trace, warn};

use crate::audit::{
    self, AuditError, Selection,
    collect::{Baseline, Collector, Options, host_root},
    metrics::AuditMetrics,
};

/// How old evidence may be.
const INTERVAL: Duration = Duration::from_secs(60);
/// How soon a change is seen.
const POLL: Duration = Duration::from_secs(10);
/// With very many namespaces polls are further apart: one part in so many of a core is what they
/// may take.
const SHARE: u32 = 5000;

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

/// What listeners asked `listen()` for, by the inode of their socket, as the agent knows it.
pub(crate) type ListenArguments = Box<dyn Fn() -> HashMap<u64, u32> + Send>;

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

    /// Begins to audit. `asked` is called on the auditor's thread, once per audit.
    ///
    /// # Errors
    ///
    /// When no thread can be had.
    pub fn start(self, asked: ListenArguments) -> std::io::Result<Auditing> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("auditor".to_owned())
            .spawn(move || self.run(&asked, &stopped))?;
        Ok(Auditing {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn run(self, asked: &ListenArguments, stopped: &Receiver<()>) {
        let mut seen: Option<BTreeMap<u32, u64>> = None;
        let mut due = Instant::now();
        loop {
            let begun = Instant::now();
            let (now, cpu) = match self.collector.poll() {
                Ok((prints, cpu)) => (Some(prints), cpu),
                Err(error) => {
                    debug!(error = &error as &dyn std::error::Error, "no poll");
                    (None, Duration::ZERO)
                }
            };
            let wait = pause(cpu);
            // What changes between this poll and the snapshot is audited twice, and never missed.
            let changed = now != seen;
            trace!(?cpu, changed, "polled");
            if changed || begun >= due {
                if let Err(error) = self.audit(asked) {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "the settings cannot be audited; trying again in a minute"
                    );
                }
                (seen, due) = (now, begun + INTERVAL);
            }
            match stopped.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn audit(&self, asked: &ListenArguments) -> Result<(), AuditError> {
        let mut machine = self.collector.snapshot(self.baseline.as_ref())?;
        machine.take_listen_arguments(&asked());
        let mut report = audit::audit(&machine, &Selection::default());
        report
            .findings
            .retain(|finding| !self.ignored.has(finding.id));
        let folded = self.metrics.fill(&machine, &report);
        debug!(findings = report.findings.len(), ?folded, "audited");
        Ok(())
    }
}

/// How long to wait after a poll that took so much CPU time.
fn pause(cpu: Duration) -> Duration {
    cpu.saturating_mul(SHARE).clamp(POLL, INTERVAL)
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
