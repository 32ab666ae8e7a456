//! Readings for the terminal view: the books as they are, and what a diagnosis says.
//!
//! Diagnoses are of windows of half a minute, one after the other. What was found in the window before
//! stays beside what is found in this one, so that nothing goes before somebody has seen it.

mod reading;
mod settings;

use std::{
    io, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;

use self::settings::Settings;
use super::{Agent, diagnosing::Window};
use crate::{
    diagnose::{self, Diagnosis, Evidence, Finding, NotSeen, Observed, Snapshot},
    top::Reading,
};

/// Length of a window.
const WINDOW: Duration = Duration::from_secs(30);
/// How often a diagnosis is made.
const JUDGED: Duration = Duration::from_secs(2);
/// Findings of the window before that are kept.
const MOST_EARLIER: usize = 100;

/// Makes readings of an agent.
pub struct Viewer {
    settings: Settings,
    zone: TimeZone,
    begun: Instant,
    window: Option<Window>,
    judged: Option<Instant>,
    diagnosis: Option<Arc<Diagnosis>>,
    /// What was found in the window that the diagnosis is of, when it is over.
    over: Option<Vec<Finding>>,
    earlier: Vec<Finding>,
}

impl Viewer {
    /// Asks the kernel for its defaults of settings. To be called before rights are given up.
    #[must_use]
    pub fn prepare() -> Self {
        Self {
            settings: Settings::prepare(),
            zone: TimeZone::system(),
            begun: Instant::now(),
            window: None,
            judged: None,
            diagnosis: None,
            over: None,
            earlier: Vec::new(),
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
            self.judge(agent, books);
        }
        reading.diagnosis.clone_from(&self.diagnosis);
        reading.earlier.clone_from(&self.earlier);
        reading
    }

    fn judge(&mut self, agent: &mut Agent, books: Snapshot) {
        let window = self
            .window
            .get_or_insert_with(|| Window::begin(books.clone()));
        self.settings.tell(agent.listen_arguments());
        let not_seen = self.settings.missing().map(|why| NotSeen {
            what: "settings".to_owned(),
            why,
        });
        let mut evidence = Evidence {
            audit: self.settings.report(),
            places: self.settings.places(),
            not_seen: not_seen.into_iter().collect(),
            zone: Some(self.zone.clone()),
            ..window.evidence(agent, books)
        };
        let diagnosis = diagnose::diagnose(&evidence);
        if let Some(over) = self.over.take() {
            self.earlier = over;
        }
        self.earlier
            .retain(|old| !diagnosis.findings.iter().any(|new| is_same(old, new)));
        if evidence.window >= WINDOW {
            *window = Window::begin(evidence.after);
            agent.history.observed = Some(Observed::default());
            let findings = diagnosis.findings.iter().take(MOST_EARLIER);
            self.over = Some(findings.cloned().collect());
        } else {
            window.books = mem::take(&mut evidence.before);
            agent.history.observed = Some(evidence.observed);
        }
        self.diagnosis = Some(Arc::new(diagnosis));
    }
}

/// Whether two findings are about the same, whatever their numbers.
fn is_same(one: &Finding, other: &Finding) -> bool {
    let who = |finding: &Finding| (finding.id, finding.netns);
    who(one) == who(other) && one.process == other.process && one.container_id == other.container_id
}
