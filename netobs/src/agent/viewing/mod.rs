//! Readings for the terminal view: the books as they are, and what a diagnosis of the last half
//! minute says.

mod reading;
mod settings;

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use self::settings::Settings;
use super::Agent;
use crate::{
    diagnose::{self, Conntrack, Diagnosis, Evidence, NotSeen, Peers, Snapshot},
    top::Reading,
};

/// How far windows of a diagnosis are apart, and how many of them one looks back over: it is of the
/// last 30 to 40 seconds.
const WINDOW: Duration = Duration::from_secs(10);
const WINDOWS: usize = 4;
/// How often a diagnosis is made.
const JUDGED: Duration = Duration::from_secs(2);

/// Makes readings of an agent.
pub struct Viewer {
    settings: Settings,
    begun: Instant,
    /// The books at the beginning of each window, and the peers seen in it; oldest first.
    windows: VecDeque<Window>,
    judged: Option<Instant>,
    diagnosis: Option<Arc<Diagnosis>>,
}

struct Window {
    begun: Instant,
    books: Snapshot,
    /// Those of the latest window are with the agent.
    peers: Peers,
}

impl Viewer {
    /// Asks the kernel for its defaults of settings. To be called before rights are given up.
    #[must_use]
    pub fn prepare() -> Self {
        Self {
            settings: Settings::prepare(),
            begun: Instant::now(),
            windows: VecDeque::new(),
            judged: None,
            diagnosis: None,
        }
    }

    /// Begins to audit settings, once a minute, on a thread of its own.
    ///
    /// # Errors
    ///
    /// When no thread can be had.
    pub fn begin(&mut self) -> io::Result<()> {
        self.settings.begin()
    }

    /// Brings the books up to now and reads them.
    pub fn read(&mut self, agent: &mut Agent) -> Reading {
        agent.gather();
        let now = Instant::now();
        let judges = self.judged.is_none_or(|judged| now - judged >= JUDGED);
        let (mut reading, books) = agent.with_view(|view| {
            let books = judges.then(|| Snapshot::of(view));
            (reading::of(view), books)
        });
        reading.at = now - self.begun;
        if let Some(books) = books {
            self.judged = Some(now);
            self.judge(agent, books, now);
        }
        reading.diagnosis.clone_from(&self.diagnosis);
        reading
    }

    fn judge(&mut self, agent: &mut Agent, books: Snapshot, now: Instant) {
        let latest = agent.peers.take().unwrap_or_default();
        self.settings.tell(agent.listen_arguments());
        let mut peers = latest.clone();
        for window in &self.windows {
            peers.merge(&window.peers);
        }
        let oldest = self.windows.front();
        let window = oldest.map_or(Duration::ZERO, |oldest| now - oldest.begun);
        let audit = self.settings.report();
        let not_seen = self.settings.missing().map(|why| NotSeen {
            what: "settings".to_owned(),
            why,
        });
        let evidence = Evidence {
            window,
            before: oldest.map_or_else(|| books.clone(), |oldest| oldest.books.clone()),
            after: books,
            peers,
            audit,
            conntrack: Conntrack::read(Path::new("/proc")),
            not_seen: not_seen.into_iter().collect(),
        };
        self.diagnosis = Some(Arc::new(diagnose::diagnose(&evidence)));
        self.turn(agent, evidence.after, latest, now);
    }

    /// Begins another window when it is time, and forgets the oldest.
    fn turn(&mut self, agent: &mut Agent, books: Snapshot, latest: Peers, now: Instant) {
        let due = self
            .windows
            .back()
            .is_none_or(|window| now - window.begun >= WINDOW);
        if !due {
            agent.peers = Some(latest);
            return;
        }
        if let Some(over) = self.windows.back_mut() {
            over.peers = latest;
        }
        agent.peers = Some(Peers::default());
        self.windows.push_back(Window {
            begun: now,
            books,
            peers: Peers::default(),
        });
        if self.windows.len() > WINDOWS {
            self.windows.pop_front();
        }
    }
}
