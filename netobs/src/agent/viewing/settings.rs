//! The auditor beside a view: once a minute, on a thread of its own, since it reads every setting of
//! every namespace.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    audit::{
        self, AuditError, Selection,
        collect::{Baseline, Collector, Options, host_root},
        report::Report,
    },
    diagnose::Place,
};

/// How old a report may be.
const INTERVAL: Duration = Duration::from_secs(60);
/// When the first is made: the view has told by then what listeners asked for.
const FIRST: Duration = Duration::from_secs(3);

/// What the auditor says.
pub(super) struct Settings {
    ready: Option<(Collector, Baseline)>,
    shared: Arc<Mutex<Shared>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and the view tell each other.
#[derive(Default)]
struct Shared {
    /// What listeners asked `listen()` for, by the inode of their socket.
    asked: HashMap<u64, u32>,
    report: Option<Report>,
    /// What else a diagnosis wants to know of each network namespace.
    places: BTreeMap<u32, Place>,
    /// Why there is none.
    missing: Option<String>,
}

impl Settings {
    pub(super) fn prepare() -> Self {
        let proc_root = Path::new("/proc");
        let collector = Collector::new(Options {
            proc_root: proc_root.to_owned(),
            root: host_root(proc_root),
            ..Options::default()
        });
        let mut shared = Shared::default();
        let ready = match collector.baseline() {
            Ok(baseline) => {
                // The thread that visits namespaces must not outlive the rights it was made with.
                collector.rest();
                Some((collector, baseline))
            }
            Err(error) => {
                shared.missing = Some(crate::probes::chain(&error));
                None
            }
        };
        Self {
            ready,
            shared: Arc::new(Mutex::new(shared)),
            stop: None,
            thread: None,
        }
    }

    pub(super) fn begin(&mut self) -> io::Result<()> {
        let Some((collector, baseline)) = self.ready.take() else {
            return Ok(());
        };
        let (stop, stopped) = channel();
        let shared = Arc::clone(&self.shared);
        self.stop = Some(stop);
        self.thread = Some(
            std::thread::Builder::new()
                .name("auditor".to_owned())
                .spawn(move || run(&collector, &baseline, &shared, &stopped))?,
        );
        Ok(())
    }

    /// Tells what listeners asked for.
    pub(super) fn tell(&self, asked: HashMap<u64, u32>) {
        with(&self.shared, |shared| shared.asked = asked);
    }

    pub(super) fn report(&self) -> Option<Report> {
        with(&self.shared, |shared| shared.report.clone())
    }

    pub(super) fn places(&self) -> BTreeMap<u32, Place> {
        with(&self.shared, |shared| shared.places.clone())
    }

    pub(super) fn missing(&self) -> Option<String> {
        with(&self.shared, |shared| shared.missing.clone())
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported by then.
            let _ = thread.join();
        }
    }
}

fn run(collector: &Collector, baseline: &Baseline, shared: &Mutex<Shared>, stopped: &Receiver<()>) {
    let mut wait = FIRST;
    while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        wait = INTERVAL;
        let asked = with(shared, |shared| std::mem::take(&mut shared.asked));
        let report = audit(collector, baseline, &asked);
        with(shared, |shared| match report {
            Ok((report, places)) => {
                (shared.report, shared.places) = (Some(report), places);
                shared.missing = None;
            }
            Err(error) => shared.missing = Some(crate::probes::chain(&error)),
        });
    }
}

fn audit(
    collector: &Collector,
    baseline: &Baseline,
    asked: &HashMap<u64, u32>,
) -> Result<(Report, BTreeMap<u32, Place>), AuditError> {
    let mut machine = collector.snapshot(Some(baseline))?;
    machine.take_listen_arguments(asked);
    let report = audit::audit(&machine, &Selection::default());
    Ok((report, Place::all(&machine)))
}

/// A panic elsewhere leaves whole values behind.
fn with<T>(shared: &Mutex<Shared>, visit: impl FnOnce(&mut Shared) -> T) -> T {
    visit(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}
