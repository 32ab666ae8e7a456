//! The agent: brings the kernel side's counts, the books and the namespaces together.
//!
//! One thread does everything, ten times a second ([`Agent::look`]) and at each scrape
//! ([`Agent::gather`]); namespaces are visited on a thread of their own.

mod auditing;
mod dns;
mod events;
mod harden;
mod namespaces;
mod owners;
mod start;
mod surface;
mod survey;
mod workloads;

use std::{
    collections::HashSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use netobs_common::ledger::ListenerReading;
use tracing::{debug, warn};

pub use self::{
    auditing::Auditor,
    start::{Failure, StartError},
    surface::AgentSurface,
    survey::{Facts, Survey, survey},
};
use self::{dns::DnsWatch, events::Events, namespaces::Namespaces, owners::ProcOwners};
use crate::{
    bpf::{IterError, ListenerReadings, MapError, Maps, Object, SocketIter},
    ledger::{
        accepts::{self, AcceptBook},
        connects::{self, ConnectBook},
        listeners::ListenerBook,
        resets::{self, ResetBook},
        retransmits::RetransmitBook,
    },
    metrics::{ResetReasons, SelfView, View},
    names::Names,
    probes::{ProbeStatus, SignalInfo},
    sys::hardening::Report,
};

/// How often listeners are looked at: a burst is placed within this.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often namespaces are looked for, besides whenever a listener turns up in an unknown one.
pub const DISCOVERY_INTERVAL: Duration = Duration::from_secs(5);
/// How long the last numbers of what is gone stay.
const LINGER: Duration = Duration::from_secs(120);
/// Series of an owner and port that have not changed for so long go, so that what ran once on a
/// long-lived host does not stay for ever.
const IDLE: Duration = Duration::from_secs(3600);
/// How often a fault that repeats is logged.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Why a look failed; the agent goes on.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// A map could not be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// An iterator could not be read.
    #[error(transparent)]
    Iter(#[from] IterError),
}

/// The running agent.
pub struct Agent {
    object: Object,
    maps: Maps,
    #[cfg(feature = "ebpf-log")]
    kernel_log: Option<crate::bpf::KernelLog>,
    readings: Option<ListenerReadings>,
    sockets: Option<SocketIter>,
    probes: Vec<ProbeStatus>,
    signals: Vec<SignalInfo>,
    listeners: ListenerBook,
    retransmits: RetransmitBook,
    connects: ConnectBook,
    accepts: AcceptBook,
    resets: ResetBook,
    reset_reasons: ResetReasons,
    names: Names,
    dns: Option<DnsWatch>,
    namespaces: Namespaces,
    /// Namespaces with drops that the latest discovery did not find (held by a descriptor only):
    /// not looked for again before the next.
    unfindable: HashSet<u32>,
    owners: ProcOwners,
    events: Events,
    buffer: Vec<ListenerReading>,
    closed: Vec<ListenerReading>,
    started: Instant,
    ready: bool,
    last_complaint: Option<Instant>,
    last_look: Instant,
    gather_seconds: f64,
    hardening: Option<Report>,
}

impl Agent {
    /// Looks at every listener, settles what it dropped, and takes what waits in the ring. A
    /// failure is logged, at most once a minute; what was not read now is read next time.
    pub fn look(&mut self) {
        self.last_look = Instant::now();
        if let Err(error) = self.try_look() {
            self.complain(&error);
        }
        #[cfg(feature = "ebpf-log")]
        if let Some(log) = &mut self.kernel_log {
            log.flush();
        }
        let namespaces = &self.namespaces;
        if self.events.drain(|netns| namespaces.knows(netns)) {
            self.discover();
        }
    }

    fn try_look(&mut self) -> Result<(), LookError> {
        self.closed.clear();
        self.maps.take_closed_listeners(&mut self.closed)?;
        if !self.closed.is_empty() {
            self.listeners.close(&self.closed, &mut self.owners);
        }
        if let Some(readings) = &mut self.readings {
            let minute = wall_minute();
            readings.read(&mut self.buffer)?;
            if self
                .listeners
                .observe(&self.buffer, minute, &mut self.owners)
            {
                readings.read(&mut self.buffer)?;
                self.listeners
                    .observe(&self.buffer, minute, &mut self.owners);
            }
        }
        self.owners.teach(&mut self.maps)?;
        if let Some(dns) = &mut self.dns {
            dns.look(|event| self.events.note(&event))?;
        }
        let unsettled = self.listeners.unsettled();
        self.find(&unsettled);
        for netns in unsettled {
            let kernel = self.namespaces.listen_counters(netns);
            self.restart_reborn();
            self.listeners.settle(netns, kernel);
        }
        Ok(())
    }

    /// Begins the sums of namespaces anew whose number was that of another.
    fn restart_reborn(&mut self) {
        for netns in self.namespaces.take_reborn(&self.retransmits) {
            debug!(%netns, "the number of a network namespace belongs to another one now");
            self.listeners.restart(netns);
        }
    }

    /// Discovers the namespaces of listeners that dropped before the event of their `listen()` was
    /// taken from the ring: without the namespace's counters, their overflows cannot be told.
    fn find(&mut self, namespaces: &HashSet<u32>) {
        let knows = |agent: &Self, netns| {
            agent.namespaces.knows(netns) || agent.unfindable.contains(&netns)
        };
        if namespaces.iter().any(|netns| !knows(self, *netns)) {
            self.discover();
            let lost = |netns: &&u32| !self.namespaces.knows(**netns);
            self.unfindable = namespaces.iter().filter(lost).copied().collect();
        }
    }

    /// Looks for namespaces that have come or gone. New ones are walked for sockets.
    pub fn discover(&mut self) {
        self.unfindable.clear();
        let found = match self.namespaces.discover() {
            Ok(found) => found,
            Err(error) => {
                self.complain(&error);
                return;
            }
        };
        for netns in &found.new {
            debug!(%netns, "found a network namespace");
            if let Some(sockets) = &self.sockets
                && let Err(error) = self.namespaces.walk(*netns, sockets)
            {
                debug!(%netns, error = &error as &dyn std::error::Error, "not walked for sockets");
            }
        }
        let dead = self.namespaces.take_expired(LINGER);
        if let Err(error) = self.forget_counts(&dead) {
            self.complain(&error);
        }
        let namespaces = &self.namespaces;
        self.listeners.forget(&dead, |labels| {
            dead.contains(&labels.owner.netns) || {
                // A listener's series outlives it by the same time as a namespace's does.
                namespaces.quiet_for(labels) > LINGER
            }
        });
        self.namespaces.note_listeners(self.listeners.series());
    }

    /// Forgets the counts of dead namespaces, and those that have not changed for long, here and on
    /// the kernel side.
    fn forget_counts(&mut self, dead: &HashSet<u32>) -> Result<(), MapError> {
        let gone = |netns: u32| dead.contains(&netns);
        for key in self.retransmits.forget(dead, IDLE) {
            self.maps.retransmits().forget(&key)?;
        }
        for key in self.connects.forget(IDLE, |key| gone(key.owner.netns)) {
            self.maps.connects().forget(&key)?;
        }
        for key in self.accepts.forget(IDLE, |key| gone(key.netns)) {
            self.maps.accepts().forget(&key)?;
        }
        for key in self.resets.forget(IDLE, |key| gone(key.owner.netns)) {
            self.maps.resets().forget(&key)?;
        }
        if let Some(dns) = &mut self.dns {
            dns.forget(dead, IDLE)?;
        }
        for netns in dead {
            self.maps.forget_server_ports(*netns)?;
        }
        Ok(())
    }

    /// Takes the kernel side's counts into the books.
    fn take_counts(&mut self) -> Result<(), MapError> {
        let workloads = &mut self.owners.workloads;
        self.retransmits
            .take(&self.maps.retransmits().read()?, workloads);
        connects::take(&mut self.connects, &self.maps.connects().read()?, workloads);
        accepts::take(&mut self.accepts, &self.maps.accepts().read()?);
        resets::take(&mut self.resets, &self.maps.resets().read()?, workloads);
        if let Some(dns) = &mut self.dns {
            dns.gather(workloads, |event| self.events.note(&event))?;
        }
        Ok(())
    }

    /// Brings everything up to now, for a scrape: kernel counters before and after the books are
    /// read, so that differences are of what is not attributed, not of what has just moved.
    pub fn gather(&mut self) {
        let begun = Instant::now();
        self.namespaces.read_before();
        self.restart_reborn();
        self.look();
        if let Err(error) = self.take_counts() {
            self.complain(&error);
        }
        self.namespaces
            .read_after(&self.listeners, &self.retransmits);
        self.gather_seconds = begun.elapsed().as_secs_f64();
    }

    /// Hands what a scrape shows to `visit`.
    pub fn with_view<T>(&self, visit: impl FnOnce(&View<'_>) -> T) -> T {
        let running = || self.probes.iter().filter_map(|probe| probe.running);
        let counts = running()
            .filter_map(|(program, _)| Some((program, self.maps.probe_counts(program).ok()?)))
            .collect();
        let runs = self
            .probes
            .iter()
            .filter_map(|probe| {
                let (_, programs) = probe.running?;
                let stats = programs
                    .iter()
                    .filter_map(|(name, _)| self.object.run_stats(name))
                    .sum();
                Some((probe.probe, stats))
            })
            .collect();
        let agent = SelfView {
            probes: self.probes.clone(),
            signals: self.signals.clone(),
            counts,
            undecodable: self.events.undecodable(),
            runs,
            unreadable_namespaces: self.namespaces.unreadable(),
            listeners: self.listeners.sockets() as u64,
            gather_seconds: self.gather_seconds,
        };
        visit(&View {
            names: &self.names,
            listeners: &self.listeners,
            accepts: &self.accepts,
            connects: &self.connects,
            resets: &self.resets,
            reset_reasons: &self.reset_reasons,
            retransmits: &self.retransmits,
            dns: self.dns.as_ref().map(DnsWatch::book),
            namespaces: &self.namespaces.views(),
            agent: &agent,
        })
    }

    /// Shows containers and pods by these names from now on.
    pub fn show(&mut self, names: Names) {
        self.names = names;
    }

    /// Whether existing sockets are found and baselines taken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether it still looks.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.last_look.elapsed() < Duration::from_secs(10)
    }

    fn complain(&mut self, error: &(dyn std::error::Error + 'static)) {
        if self
            .last_complaint
            .is_none_or(|last| last.elapsed() > COMPLAINT_INTERVAL)
        {
            warn!(error, "a look failed; trying again at the next");
            self.last_complaint = Some(Instant::now());
        }
    }
}

/// Minutes since 1970.
fn wall_minute() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() / 60)
}
