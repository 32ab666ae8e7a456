//! The words of a diagnosis.

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use super::{Evidence, Source};
use crate::{audit::finding::Severity, ledger::owner::Owner};

/// Version of the JSON form; it changes when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What it rests on.
    pub source: Source,
    /// Beginning of the window, RFC 3339; null when not known.
    pub since: Option<String>,
    /// Its end.
    pub until: Option<String>,
    /// Its length, seconds.
    pub window_seconds: f64,
    /// Network namespaces that were looked at; of a recording, that there are events of.
    pub namespaces: usize,
    /// Addresses and ports that something listens on.
    pub listeners: usize,
    /// Events of the recording in the window; null when there is none.
    pub events: Option<u64>,
    /// What is wrong, the gravest first.
    pub findings: Vec<Finding>,
    /// What was looked at and is well.
    pub healthy: Vec<Healthy>,
    /// What could not be seen here.
    pub not_seen: Vec<NotSeen>,
}

impl Diagnosis {
    pub(super) fn new(evidence: &Evidence) -> Self {
        let zone = evidence.zone.clone().unwrap_or(TimeZone::UTC);
        let time = |wall_ns: u64| {
            let time = Timestamp::from_nanosecond(wall_ns.into()).ok()?;
            Some(format!(
                "{:.3}",
                time.display_with_offset(zone.to_offset(time))
            ))
        };
        let window_ns = u64::try_from(evidence.window.as_nanos()).unwrap_or(u64::MAX);
        let until = (evidence.until_ns != 0).then_some(evidence.until_ns);
        let since = until.map(|until| until.saturating_sub(window_ns));
        Self {
            schema_version: SCHEMA_VERSION,
            source: evidence.source,
            since: since.and_then(time),
            until: until.and_then(time),
            window_seconds: evidence.window.as_secs_f64(),
            namespaces: evidence.after.counters.len().max(evidence.namespaces),
            listeners: evidence.after.listeners.len(),
            events: evidence.events,
            findings: Vec::new(),
            healthy: Vec::new(),
            not_seen: evidence.not_seen.clone(),
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Stable name, such as `accept-queue-overflow`.
    pub id: &'static str,
    /// How much it harms.
    pub severity: Severity,
    /// In one sentence.
    pub summary: String,
    /// Inode number of the network namespace; null when it concerns several.
    pub netns: Option<u32>,
    /// The process, empty when not known.
    pub process: String,
    /// The container, empty when there is none.
    pub container_id: String,
    /// The pod, empty when there is none.
    pub pod_uid: String,
    /// How many events it rests on.
    pub events: u64,
    /// The facts, each with its numbers.
    pub evidence: Vec<String>,
    /// From what is felt to what is to blame.
    pub cause: Vec<String>,
    /// Commands and changes, the one to begin with first.
    pub remedy: Vec<String>,
    /// What became of single connections that it happened to: three at most.
    pub stories: Vec<String>,
    /// The auditor's rule that it comes from.
    #[serde(skip)]
    pub(super) rule: Option<&'static str>,
}

impl Finding {
    /// With this much, and nothing else.
    #[must_use]
    pub fn new(id: &'static str, severity: Severity, summary: impl Into<String>) -> Self {
        Self {
            id,
            severity,
            summary: summary.into(),
            netns: None,
            process: String::new(),
            container_id: String::new(),
            pod_uid: String::new(),
            events: 0,
            evidence: Vec::new(),
            cause: Vec::new(),
            remedy: Vec::new(),
            stories: Vec::new(),
            rule: None,
        }
    }

    pub(super) fn of(mut self, owner: &Owner) -> Self {
        self.process = owner.process.to_string();
        let text = |id: Option<String>| id.unwrap_or_default();
        self.container_id = text(owner.workload.container().map(|id| id.to_string()));
        self.pod_uid = text(owner.workload.pod().map(|uid| uid.to_string()));
        self.in_namespace(owner.netns)
    }

    pub(super) fn in_namespace(mut self, netns: u32) -> Self {
        self.netns = (netns != 0).then_some(netns);
        self
    }

    pub(super) fn events(mut self, events: u64) -> Self {
        self.events = events;
        self
    }

    pub(super) fn seen(mut self, fact: impl Into<String>) -> Self {
        self.evidence.push(fact.into());
        self
    }

    pub(super) fn because(mut self, step: impl Into<String>) -> Self {
        self.cause.push(step.into());
        self
    }

    pub(super) fn mend(mut self, remedy: impl Into<String>) -> Self {
        self.remedy.push(remedy.into());
        self
    }

    pub(super) fn seen_if(self, fact: Option<impl Into<String>>) -> Self {
        match fact {
            Some(fact) => self.seen(fact),
            None => self,
        }
    }

    pub(super) fn by(mut self, rule: &'static str) -> Self {
        self.rule = Some(rule);
        self
    }

    pub(super) fn told(mut self, stories: Vec<String>) -> Self {
        self.stories = stories;
        self
    }

    /// For whom, in words.
    pub(super) fn who(&self) -> String {
        let mut parts = Vec::new();
        if !self.process.is_empty() {
            parts.push(self.process.clone());
        }
        if !self.container_id.is_empty() {
            parts.push(format!("container {}", self.container_id));
        }
        if !self.pod_uid.is_empty() {
            parts.push(format!("pod {}", self.pod_uid));
        }
        if let Some(netns) = self.netns {
            parts.push(format!("netns {netns}"));
        }
        parts.join(", ")
    }
}

/// A rule that found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Healthy {
    /// The rule.
    pub rule: &'static str,
    /// What it looked at.
    pub looked_at: &'static str,
}

/// Something that could not be seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotSeen {
    /// What.
    pub what: String,
    /// Why, and how well it is known instead.
    pub why: String,
}

/// `3 SYNs`, `1 SYN`.
pub(super) fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}
