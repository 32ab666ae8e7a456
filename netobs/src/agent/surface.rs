//! What the web room asks of the agent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netobs_common::probe::Loss;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode},
    registry::Registry,
};
use serde_json::json;

use super::{Agent, paths::SharedBook};
use crate::{audit::metrics::AuditMetrics, web::Surface};

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

    fn is_ready(&self) -> bool {
        lock(&self.agent).is_ready()
    }

    fn is_healthy(&self) -> bool {
        lock(&self.agent).is_healthy()
    }
}
