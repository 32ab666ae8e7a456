//! The agent: brings the kernel side's counts, the books and the namespaces together.
//!
//! One thread does everything, ten times a second ([`Agent::glance`]) and at each scrape
//! ([`Agent::gather`]); namespaces are visited on a thread of their own.

mod auditing;
mod bursts;
mod context;
mod diagnosing;
mod dns;
mod drops;
mod events;
mod harden;
mod history;
mod live;
mod lives;
mod namespaces;
mod owners;
pub mod paths;
mod reload;
mod rest;
mod room;
mod start;
mod surface;
mod survey;
mod sweep;
mod viewing;
mod workloads;

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use netobs_common::{
    event::Event,
    ledger::ListenerReading,
    probe::{Loss, Program, Relieved},
};
use tracing::{debug, warn};

pub use self::{
    auditing::{Auditor, Ignored},
    history::Tap,
    live::{Ending, Watch},
    start::{Failure, StartError},
    surface::AgentSurface,
    survey::{Facts, Survey, survey},
    viewing::Viewer,
};
use self::{
    bursts::BurstWatch,
    context::Context,
    dns::DnsWatch,
    drops::DropWatch,
    events::Events,
    history::History,
    namespaces::{ListenReading, Namespaces},
    owners::ProcOwners,
    paths::ProbeSockets,
    reload::Reload,
    rest::Rest,
    sweep::Sweep,
};
use crate::{
    bpf::{Filling, IterError, ListenerReadings, MapError, Maps, Object, RunStats, SocketIter},
    ledger::{
        accepts::AcceptBook,
        connects::ConnectBook,
        listeners::{ListenerBook, ListenerLabels},
        namespace::Namespace,
        resets::ResetBook,
        retransmits::RetransmitBook,
        stories::Stories,
    },
    metrics::{ResetReasons, SelfView, View},
    names::Names,
    probes::{self, ProbeStatus, SignalInfo},
    recorder::Recorder,
    sys::{
        clock::{self, ClockPair},
        hardening::Report,
        memory,
        netns::Thoroughness,
    },
};

/// How often listeners are looked at: a burst is placed within this.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often namespaces are looked for, besides whenever a listener turns up in an unknown one.
pub const DISCOVERY_INTERVAL: Duration = Duration::from_secs(5);
/// Every so many discoveries by the clock, that is once a minute, each process is looked at: one may
/// have moved to another namespace, or have the number of one that is gone.
const ROUNDS: u32 = 12;
/// How long the last numbers of what is gone stay.
const LINGER: Duration = Duration::from_secs(120);
/// How often a recording is told who listens, besides at the beginning of each file.
const CONTEXT_INTERVAL: Duration = Duration::from_secs(600);
/// Series of an owner and port that have not changed for so long go, so that what ran once on a
/// long-lived host does not stay for ever.
const IDLE: Duration = Duration::from_secs(3600);
/// How often counts are looked through for those that are idle.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
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

/// What a reading of every listener brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// What the one before it brought, which is in the books.
    Nothing,
    /// Something to take into the books, and it is there.
    Something,
    /// The same, and a second reading is wanted.
    Rise,
}

/// The running agent.
pub struct Agent {
    object: Object,
    maps: Maps,
    #[cfg(feature = "ebpf-log")]
    kernel_log: Option<crate::bpf::KernelLog>,
    readings: Option<ListenerReadings>,
    sockets: Option<SocketIter>,
    sweep: Sweep,
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
    /// Discoveries by the clock.
    patrols: u32,
    /// Losses of reason `unknown_listener` at the last discovery.
    unknown: u64,
    /// Namespaces whose sockets that are older than the agent were not seen yet; `None` when all were.
    unseen: Option<HashSet<u32>>,
    /// [`LINGER`], but in tests.
    linger: Duration,
    owners: ProcOwners,
    events: Events,
    stories: Stories,
    history: History,
    context: Context,
    drops: DropWatch,
    bursts: BurstWatch,
    last_context: Instant,
    buffer: Vec<ListenerReading>,
    rest: Rest,
    closed: Vec<ListenerReading>,
    started: Instant,
    ready: bool,
    last_complaint: Option<Instant>,
    last_look: Instant,
    last_forgot: Instant,
    gather_seconds: f64,
    hardening: Option<Report>,
    reload: Reload,
}

impl Agent {
    /// Looks at every listener, settles what it dropped, and takes what waits in the ring. A
    /// failure is logged, at most once a minute; what was not read now is read next time.
    pub fn look(&mut self) {
        self.last_look = Instant::now();
        self.rest.is_stirred = false;
        let looked = self.try_look();
        if let Err(error) = &looked {
            self.complain(error);
            self.rest.disturb();
        }
        self.look_elsewhere(looked.unwrap_or(true));
    }

    /// What a look does besides reading listeners; `something`: it has found something new there.
    fn look_elsewhere(&mut self, something: bool) {
        #[cfg(feature = "ebpf-log")]
        if let Some(log) = &mut self.kernel_log {
            log.flush();
        }
        let now_ns = clock::monotonic_ns();
        if something {
            self.bursts.look(&self.listeners, now_ns);
            let bursts = &mut self.bursts;
            self.drops
                .look(&self.listeners, |risen| bursts.found(risen, now_ns));
        }
        self.bursts.looked(now_ns);
        if let Some(dns) = &mut self.dns
            && let Err(error) = dns.look()
        {
            self.complain(&error);
        }
        self.take_events();
        self.tell_given_up();
        if let Some(probes) = self.events.probes() {
            probes.tell(&self.stories);
        }
        if self.history.is_wanted() {
            self.tell_untold(now_ns);
        }
        if self.bursts.is_due(now_ns) {
            self.take_bursts(now_ns);
        }
        self.keep_recording();
    }

    /// Takes what waits in the ring.
    pub fn take_events(&mut self) {
        let namespaces = &self.namespaces;
        let (bursts, drops, history) = (&self.bursts, &mut self.drops, &mut self.history);
        let wanted = history.is_wanted();
        let stories = &mut self.stories;
        let workloads = &mut self.owners.workloads;
        let stirred = &mut self.rest.is_stirred;
        let opened = self.events.drain(
            |netns| namespaces.knows(netns),
            |event| {
                *stirred = true;
                stories.take(event, workloads);
                if !wanted {
                    return;
                }
                if let Event::ListenDrop(drop) = event {
                    drops.told(drop, bursts.labels_of(drop.sk));
                }
                history.take(event, workloads);
            },
        );
        if opened | self.namespaces.take_stranger() {
            self.discover();
        }
    }

    /// Tells when it is time to [`Agent::take_events`], before the next look; made inside a runtime.
    ///
    /// # Errors
    ///
    /// When the ring cannot be waited for.
    pub fn filling(&self) -> io::Result<Filling> {
        self.events.filling()
    }

    /// Takes the events of name lookups that were given up: the kernel side has none of them.
    fn tell_given_up(&mut self) {
        let Some(dns) = &mut self.dns else {
            return;
        };
        for event in dns.take_given_up() {
            if let Some(probes) = self.events.probes() {
                probes.record(&event);
            }
            if self.history.is_wanted() {
                self.history.take(&event, &mut self.owners.workloads);
            }
        }
    }

    /// Makes events of listen drops that no event told of.
    fn tell_untold(&mut self, now_ns: u64) {
        let (buffer, bursts) = (&self.buffer, &self.bursts);
        let (context, owners) = (&self.context, &self.owners);
        let who = |labels: &ListenerLabels| {
            let of =
                |reading: &&ListenerReading| bursts.labels_of(reading.socket.sk) == Some(*labels);
            let mut sockets = buffer.iter().filter(of);
            let first = sockets.next();
            let owner = first.map(|reading| context.owner(&reading.listener, owners));
            let only = first.filter(|_| sockets.next().is_none());
            (
                only.map_or(0, |reading| reading.socket.sk),
                owner.unwrap_or_default(),
            )
        };
        for drop in self.drops.untold(&self.listeners, now_ns, who) {
            let drop = Event::ListenDrop(drop);
            self.history.take(&drop, &mut self.owners.workloads);
        }
    }

    fn take_bursts(&mut self, now_ns: u64) {
        let clock = ClockPair::sample();
        let namespaces = self.namespaces.all();
        let taken = self.bursts.take(&mut self.maps, namespaces, now_ns, clock);
        if let Err(error) = taken {
            self.complain(&error);
        }
    }

    /// Closes a block that is old enough, and tells a recording now and then who listens.
    fn keep_recording(&mut self) {
        let Some(recorder) = &mut self.history.recorder else {
            return;
        };
        recorder.tick();
        if recorder.wants_context() || self.last_context.elapsed() > CONTEXT_INTERVAL {
            self.last_context = Instant::now();
            self.record_context();
        }
    }

    /// Returns whether there was anything to take into the books.
    fn try_look(&mut self) -> Result<bool, LookError> {
        self.closed.clear();
        self.maps.take_closed_listeners(&mut self.closed)?;
        let mut something = !self.closed.is_empty();
        if something {
            let mut closed = std::mem::take(&mut self.closed);
            self.keep_present(&mut closed);
            self.listeners.close(&closed, &mut self.owners);
            self.closed = closed;
        }
        let seen = self.observe()?;
        something |= seen != Seen::Nothing;
        if seen == Seen::Rise {
            // A second look confirms it at once.
            self.observe()?;
        }
        self.owners.teach(&mut self.maps)?;
        if !something && self.rest.is_settled {
            return Ok(false);
        }
        let unsettled = self.listeners.unsettled();
        self.rest.is_settled = unsettled.is_empty();
        self.find(&unsettled);
        for namespace in unsettled {
            let reading = self.namespaces.listen_counters(namespace);
            self.end_lives()?;
            let kernel = match reading {
                ListenReading::Read(kernel) => Some(kernel),
                ListenReading::NotNow => continue,
                ListenReading::Never => None,
            };
            if self.namespaces.has(namespace) {
                self.listeners.settle(namespace, kernel);
            }
        }
        Ok(true)
    }

    /// Takes one reading of every listener.
    fn observe(&mut self) -> Result<Seen, LookError> {
        let Some(readings) = &mut self.readings else {
            return Ok(Seen::Nothing);
        };
        let differs = readings.read(&mut self.buffer)?;
        if !differs && self.rest.lasts() {
            return Ok(Seen::Nothing);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let open = buffer.iter().map(|reading| &reading.listener);
        self.namespaces
            .vouch(open.map(|listener| (listener.into(), listener.opened_ns)));
        self.keep_present(&mut buffer);
        self.stories.look(&buffer, self.listeners.counting());
        let rose = self
            .listeners
            .observe(&buffer, wall_minute(), &mut self.owners);
        self.buffer = buffer;
        self.rest.taken_in = Some(Instant::now());
        self.rest.is_complete = !rose && !self.listeners.samples_looks();
        Ok(if rose { Seen::Rise } else { Seen::Something })
    }

    /// Discovers the namespaces of listeners that dropped before the event of their `listen()` was
    /// taken from the ring: without the namespace's counters, their overflows cannot be told.
    fn find(&mut self, namespaces: &HashSet<Namespace>) {
        let knows = |agent: &Self, number| {
            agent.namespaces.knows(number) || agent.unfindable.contains(&number)
        };
        let numbers = || namespaces.iter().map(|namespace| namespace.number);
        if numbers().any(|number| !knows(self, number)) {
            self.discover();
            self.unfindable = numbers()
                .filter(|number| !self.namespaces.knows(*number))
                .collect();
        }
    }

    /// Leaves the events of path probes' sockets with them from now on.
    pub fn tell_probes(&mut self, sockets: Arc<ProbeSockets>) {
        self.events.tell_probes(sockets);
    }

    /// Looks for namespaces that have come or gone. New ones are walked for sockets.
    pub fn discover(&mut self) {
        self.look_for_namespaces(Thoroughness::Every);
    }

    /// The same by the clock: only new processes are looked at, and every one each
    /// [`ROUNDS`]th time.
    pub fn patrol(&mut self) {
        self.patrols = self.patrols.wrapping_add(1);
        if self.patrols == 1 {
            memory::release_code();
        }
        self.look_for_namespaces(if self.patrols.is_multiple_of(ROUNDS) {
            Thoroughness::Every
        } else {
            Thoroughness::New
        });
        let found = self.maps.probe_counts(Program::GoneSockets);
        let found = found.map_or(0, |counts| counts.events);
        let lacked = self.lost_for(Loss::MapFull);
        if let Err(error) = self.sweep.patrol(found, lacked) {
            self.complain(&error);
        }
    }

    fn look_for_namespaces(&mut self, thoroughness: Thoroughness) {
        self.unfindable.clear();
        if let Some(now) = ClockPair::sample() {
            self.stories.expire(now.monotonic_ns);
        }
        let found = match self.namespaces.discover(thoroughness) {
            Ok(found) => found,
            Err(error) => {
                self.complain(&error);
                return;
            }
        };
        let mut walked = found.new;
        // Something was counted for a listener that is not known: it was missed when its namespace
        // was walked, or opened where the kernel runs no program.
        let unknown = self.lost_for(Loss::UnknownListener);
        if unknown > self.unknown {
            walked = self.namespaces.all().into_iter().collect();
        }
        self.unknown = unknown;
        for netns in &walked {
            debug!(%netns, "looking for the sockets of a network namespace");
            if let Some(sockets) = &self.sockets
                && let Err(error) = self.namespaces.walk(*netns, sockets)
            {
                debug!(%netns, error = &error as &dyn std::error::Error, "not walked for sockets");
                if let Some(unseen) = &mut self.unseen {
                    unseen.insert(*netns);
                }
            }
        }
        self.see_older_sockets();
        // Nobody may have scraped since something was counted: a key that the books do not know they
        // cannot forget, and one that seems idle may not be.
        let mut idle = Duration::MAX;
        if self.last_forgot.elapsed() > FORGET_INTERVAL || self.namespaces.has_expired(self.linger)
        {
            self.last_forgot = Instant::now();
            match self.take_counts() {
                Ok(()) => idle = IDLE,
                Err(error) => self.complain(&error),
            }
        }
        let dead = self.namespaces.take_expired(self.linger);
        if let Err(error) = self.forget_counts(&dead, idle) {
            self.complain(&error);
        }
        let (namespaces, linger) = (&self.namespaces, self.linger);
        self.listeners.forget(&dead, |labels| {
            dead.contains(&labels.owner.netns) || {
                // A listener's series outlives it by the same time as a namespace's does.
                namespaces.quiet_for(labels) > linger
            }
        });
        self.namespaces.note_listeners(self.listeners.series());
        let namespaces = &self.namespaces;
        self.bursts.forget(&self.listeners, |netns| {
            netns == 0 || namespaces.is_observed(netns)
        });
        self.drops.forget(&self.listeners);
    }

    /// Walks over the namespaces whose older sockets were not seen yet. Once all are, a socket that is not
    /// known is a new one; before, one is credited with what an event shows only.
    fn see_older_sockets(&mut self) {
        let (Some(unseen), Some(sockets)) = (&mut self.unseen, &self.sockets) else {
            return;
        };
        let (namespaces, ready) = (&mut self.namespaces, self.ready);
        unseen.retain(|netns| {
            let Err(error) = namespaces.walk(*netns, sockets) else {
                return false;
            };
            let error: &dyn std::error::Error = &error;
            if ready {
                debug!(%netns, error, "sockets that are older than netobs are still not known");
            } else {
                warn!(
                    %netns,
                    error,
                    "sockets of a network namespace that are older than netobs are not known: trying again"
                );
            }
            true
        });
        if !unseen.is_empty() || namespaces.all().is_empty() {
            return;
        }
        match self.maps.set_baselined() {
            Ok(()) => self.unseen = None,
            Err(error) => self.complain(&error),
        }
    }

    /// Why segments that a socket has sent again may have no event and not be found otherwise.
    fn blind_spot(&self) -> Option<&'static str> {
        if self.maps.lacked_room().unwrap_or(false) {
            return Some(
                "a socket found no room: those that are not known are counted by their events, which a \
                 failure or a skipped run may not have",
            );
        }
        self.unseen.as_ref().map(|_| {
            "not every socket that is older than netobs was seen: those are counted by their events, which \
             a failure or a skipped run may not have"
        })
    }

    /// How often a probe has lost something for this reason.
    fn lost_for(&self, reason: Loss) -> u64 {
        let running = self.probes.iter().filter_map(|probe| probe.running);
        running
            .filter_map(|(program, _)| self.maps.probe_counts(program).ok())
            .map(|counts| counts.lost[reason as usize])
            .sum()
    }

    /// Forgets the counts of dead namespaces, and those that have not changed for `idle`, here and on
    /// the kernel side.
    fn forget_counts(&mut self, dead: &HashSet<u32>, idle: Duration) -> Result<(), MapError> {
        let gone = |netns: u32| dead.contains(&netns);
        for key in self.retransmits.forget(dead, idle) {
            self.maps.retransmits().forget(&key)?;
        }
        for key in self.connects.forget(idle, |key| gone(key.owner.netns)) {
            self.maps.connects().forget(&key)?;
        }
        for key in self.accepts.forget(idle, |key| gone(key.netns)) {
            self.maps.accepts().forget(&key)?;
        }
        for key in self.resets.forget(idle, |key| gone(key.owner.netns)) {
            self.maps.resets().forget(&key)?;
        }
        if let Some(dns) = &mut self.dns {
            dns.forget(idle, |namespace| gone(namespace.number))?;
        }
        for netns in dead {
            self.maps.forget_server_ports(*netns)?;
        }
        Ok(())
    }

    /// Brings everything up to now, for a scrape: kernel counters before and after the books are
    /// read, so that differences are of what is not attributed, not of what has just moved.
    pub fn gather(&mut self) {
        let begun = Instant::now();
        self.namespaces.read_before();
        if let Err(error) = self.end_lives() {
            self.complain(&error);
        }
        self.look();
        self.take_bursts(clock::monotonic_ns());
        if let Err(error) = self.take_counts() {
            self.complain(&error);
        }
        self.namespaces
            .read_after(&self.listeners, &self.retransmits);
        if let Err(error) = self.end_lives() {
            self.complain(&error);
        }
        self.gather_seconds = begun.elapsed().as_secs_f64();
    }

    /// Hands what a scrape shows to `visit`.
    pub fn with_view<T>(&self, visit: impl FnOnce(&View<'_>) -> T) -> T {
        let running = || self.probes.iter().filter_map(|probe| probe.running);
        let counts = running()
            .filter_map(|(program, _)| Some((program, self.maps.probe_counts(program).ok()?)))
            .collect();
        let runs: Vec<(&'static str, RunStats)> = self
            .probes
            .iter()
            .filter_map(|probe| {
                let (counts, programs) = probe.running?;
                // One program may be attached in two places, which follow each other.
                let mut names: Vec<&str> = programs.iter().map(|(name, _)| *name).collect();
                names.dedup();
                let each: Vec<RunStats> = names
                    .into_iter()
                    .filter_map(|name| self.object.run_stats(name))
                    .collect();
                let mut stats: RunStats = each.iter().copied().sum();
                if Relieved::of(counts).is_some() {
                    // What the kernel did not run the first of two programs for, the second does.
                    let skipped = each.first().map_or(0, |first| first.skipped);
                    let stood_in = self.maps.stood_in(counts).unwrap_or(0);
                    stats.skipped = skipped.saturating_sub(stood_in);
                }
                Some((probe.probe, stats))
            })
            .collect();
        let agent = SelfView {
            probes: self.probes.clone(),
            signals: probes::lowered(&self.signals, self.blind_spot(), |name| {
                runs.iter()
                    .any(|(probe, stats)| *probe == name && stats.skipped > 0)
            }),
            counts,
            undecodable: self.events.undecodable(),
            runs,
            unreadable_namespaces: self.namespaces.unreadable(),
            listeners: self.listeners.sockets() as u64,
            gather_seconds: self.gather_seconds,
            reload_successful: self.reload.successful,
            reload_succeeded_at: self.reload.succeeded_at,
        };
        visit(&View {
            names: &self.names,
            listeners: &self.listeners,
            accepts: &self.accepts,
            connects: &self.connects,
            resets: &self.resets,
            reset_reasons: &self.reset_reasons,
            retransmits: &self.retransmits,
            bursts: self.bursts.books(),
            recorder: self.history.recorder.as_ref().map(Recorder::stats),
            dns: self.dns.as_ref().map(DnsWatch::book),
            namespaces: &self.namespaces.views(),
            agent: &agent,
        })
    }

    /// The stories of connections to which something happened lately.
    #[must_use]
    pub fn stories(&self) -> &Stories {
        &self.stories
    }

    /// Shows containers and pods by these names from now on.
    pub fn show(&mut self, names: Names) {
        self.names = names;
    }

    /// What listeners asked `listen()` for, by the inode of their socket, where it was seen.
    #[must_use]
    pub fn listen_arguments(&self) -> HashMap<u64, u32> {
        self.listeners.asked()
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
