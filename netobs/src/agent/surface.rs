//! What the web room asks of the agent.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{Zoned, tz::TimeZone};
use netobs_common::{event::Event, probe::Loss};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode},
    registry::Registry,
};
use serde_json::json;

use super::{Agent, paths::SharedBook};
use crate::{
    audit::metrics::AuditMetrics,
    recorder::Range,
    sys::cgroup::Workloads,
    trace::{Lines, parse_moment},
    web::{EventLines, NoEvents, Surface},
};

/// The agent behind its lock, as the web room sees it.
pub struct AgentSurface {
    agent: Arc<Mutex<Agent>>,
    registry: Registry,
    paths: SharedBook,
}

/// Encodes the agent's view at each scrape.
struct AgentCollector(Arc<Mutex<Agent>>);

impl std::fmt::Debug for AgentCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentCollector")
    }
}

/// Lines that know who listens now, and the containers of this machine.
fn lines_of_this_machine(context: &[Event]) -> Lines {
    let mut workloads = Workloads::new(Path::new("/proc"));
    let find = move |cgroup, pid| workloads.of(cgroup, pid);
    let mut lines = Lines::new(TimeZone::system(), Box::new(find));
    for event in context {
        lines.learn(event);
    }
    lines
}

/// A panic elsewhere must not end the agent: its books are counts, valid at every step.
fn lock(agent: &Mutex<Agent>) -> MutexGuard<'_, Agent> {
    agent.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Collector for AgentCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        lock(&self.0).with_view(|view| view.encode(&mut encoder))
    }
}

impl AgentSurface {
    /// The surface of `agent`, with what the auditor and the path probes find.
    #[must_use]
    pub fn new(agent: Arc<Mutex<Agent>>, audit: &AuditMetrics, paths: SharedBook) -> Self {
        let mut registry = Registry::default();
        audit.register(registry.sub_registry_with_prefix("netobs"));
        registry.register_collector(Box::new(AgentCollector(Arc::clone(&agent))));
        registry.register_collector(Box::new(paths.clone()));
        Self {
            agent,
            registry,
            paths,
        }
    }

    /// The agent, to look and to discover.
    pub fn agent(&self) -> MutexGuard<'_, Agent> {
        lock(&self.agent)
    }
}

impl Surface for AgentSurface {
    fn openmetrics(&self) -> Result<String, std::fmt::Error> {
        lock(&self.agent).gather();
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn status(&self) -> serde_json::Value {
        let agent = lock(&self.agent);
        agent.with_view(|view| {
            let programs: serde_json::Map<String, serde_json::Value> = view
                .agent
                .counts
                .iter()
                .map(|(program, counts)| {
                    let lost: serde_json::Map<String, serde_json::Value> = Loss::ALL
                        .iter()
                        .zip(counts.lost)
                        .map(|(loss, lost)| (loss.name().to_owned(), lost.into()))
                        .collect();
                    (
                        program.name().to_owned(),
                        json!({"events": counts.events, "lost": lost}),
                    )
                })
                .collect();
            json!({
                "version": crate::cli::version(),
                "uptime_seconds": agent.started.elapsed().as_secs(),
                "ready": agent.is_ready(),
                "probes": view.agent.probes,
                "signals": view.agent.signals,
                "programs": programs,
                "events_undecodable": view.agent.undecodable,
                "namespaces": agent.namespaces.all().len(),
                "listeners": view.agent.listeners,
                "names": agent.names.status(),
                "hardening": agent.hardening,
            })
        })
    }

    fn network_health(&self) -> (bool, serde_json::Value) {
        self.paths.health()
    }

    fn events(&self, since: Option<&str>, until: Option<&str>) -> Result<EventLines, NoEvents> {
        let now = Zoned::now();
        let at = |text: Option<&str>, name: &str| {
            let ns = text.map(|text| parse_moment(text)?.wall_ns(&now));
            ns.transpose()
                .map_err(|error| NoEvents::Time(format!("{name}: {error}")))
        };
        let range = Range {
            since_ns: at(since, "since")?,
            until_ns: at(until, "until")?,
        };
        let (context, recent) = lock(&self.agent).recent().ok_or(NoEvents::Off)?;
        // Files and cgroups are read later and elsewhere.
        let reading = std::iter::once(recent).flat_map(move |recent| recent.read(range));
        let mut lines = None;
        Ok(Box::new(reading.filter_map(move |recorded| {
            let lines = lines.get_or_insert_with(|| lines_of_this_machine(&context));
            lines.learn(&recorded.event);
            if recorded.context {
                return None;
            }
            let line = lines.recorded(&recorded);
            serde_json::to_string(&line).ok()
        })))
    }

    fn is_ready(&self) -> bool {
        lock(&self.agent).is_ready()
    }

    fn is_healthy(&self) -> bool {
        lock(&self.agent).is_healthy()
    }
}
