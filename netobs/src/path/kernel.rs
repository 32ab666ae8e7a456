//! Where the kernel's own events of a probe's sockets come from.

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;

use super::outcome::{Measurement, QueryOutcome, Transport, seconds};

/// The two ends of a socket of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Ends {
    /// Ours.
    pub local: SocketAddr,
    /// Theirs.
    pub remote: SocketAddr,
    /// UDP or TCP.
    pub transport: Transport,
}

/// A span of `CLOCK_MONOTONIC`, nanoseconds, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Window {
    pub from_ns: u64,
    pub to_ns: u64,
}

/// [`KernelFact::event`] of a whole connection's story.
pub const STORY: &str = "story";

/// Something that the kernel did to a socket of a probe, or the story of its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelFact {
    /// Since the measurement began.
    #[serde(rename = "at_seconds", serialize_with = "seconds")]
    pub at: Duration,
    /// The socket.
    #[serde(flatten)]
    pub ends: Ends,
    /// The kind of event: `retransmit`, `reset`, ..., or [`STORY`]: all that is known of the connection
    /// from both of its ends, with the time of its latest event.
    pub event: &'static str,
    /// What it says, in a few words.
    pub text: String,
}

/// Knows what the kernel did to sockets of probes.
pub trait KernelStory: Send + Sync {
    /// A socket of a probe is about to send its first packet: events of it are to be kept.
    fn watch(&self, ends: Ends);

    /// The events of the sockets within the window, in the order in which they happened, then the
    /// stories; each has its time since the beginning of the window. The sockets are forgotten.
    fn of(&self, ends: &[Ends], window: Window) -> Vec<KernelFact>;
}

/// For where no events are to be had: the command without the agent.
#[derive(Clone, Copy, Debug)]
pub struct NoKernel;

impl KernelStory for NoKernel {
    fn watch(&self, _: Ends) {}

    fn of(&self, _: &[Ends], _: Window) -> Vec<KernelFact> {
        Vec::new()
    }
}

impl Measurement {
    /// Every socket that the measurement opened.
    #[must_use]
    pub fn ends(&self) -> Vec<Ends> {
        let mut all = Vec::new();
        for step in &self.steps {
            let queries = step.lookup.iter().flat_map(|lookup| &lookup.queries);
            let asked = queries.map(|query| (query.local, query.server, query.transport));
            let connected = step
                .connections
                .iter()
                .map(|it| (it.local, it.remote, Transport::Tcp));
            for (local, remote, transport) in asked.chain(connected) {
                let Some(local) = local else { continue };
                let ends = Ends {
                    local,
                    remote,
                    transport,
                };
                if !all.contains(&ends) {
                    all.push(ends);
                }
            }
        }
        all
    }

    /// Whether a name server was asked and did not answer.
    #[must_use]
    pub fn has_unanswered_question(&self) -> bool {
        let lookups = self.steps.iter().flat_map(|step| &step.lookup);
        let mut queries = lookups.flat_map(|lookup| &lookup.queries);
        queries.any(|query| query.outcome == QueryOutcome::NoAnswer)
    }

    /// The time of the measurement, as the kernel's events count it, and `slack` after it.
    #[must_use]
    pub fn window(&self, slack: Duration) -> Window {
        let length = self.phases.total.saturating_add(slack).as_nanos();
        Window {
            from_ns: self.started_ns,
            to_ns: self
                .started_ns
                .saturating_add(u64::try_from(length).unwrap_or(u64::MAX)),
        }
    }

    /// Takes in what the kernel did, and tells the story anew with it.
    pub fn join(&mut self, facts: Vec<KernelFact>) {
        self.kernel = facts;
        self.story = super::story::tell(self);
    }
}
