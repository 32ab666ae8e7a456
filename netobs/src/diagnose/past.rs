//! Evidence of recorded events.
//!
//! A recording holds what went wrong: every retransmission, listen drop and reset, connects that failed
//! or had to send their SYN again, connections that waited long for `accept()`, lookups that were slow,
//! failed or got no answer, and who listens. It does not hold what went well, nor settings, nor the
//! kernel's own counters; what follows from these is said to be unknown.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use netobs_common::{
    connection::{ConnectFailure, LATENCY_BOUNDS_NS, Latencies},
    event::{
        Accept, CONNECTED, Connect, DNS_ANSWERED, DNS_LATE, Dns, Event, LISTENER_CLOSED,
        ListenDrop, ListenerChange, Reset, Retransmit,
    },
    ledger::{Direction, Reason, ResetClass, Role, Stage},
    owner::Owner as KernelOwner,
};
use zerocopy::TryFromBytes as _;

use super::{Evidence, NotSeen, Observed, Snapshot, Source};
use crate::{
    ledger::{
        connects::ConnectLabels,
        listeners::{ListenerLabels, address},
        owner::{Owner, Workloads},
        resets::ResetLabels,
        retransmits::RetransmitLabels,
        stories::{Stories, Story},
    },
    sys::{cgroup::Workload, clock::ClockPair, owner::Comm},
};

/// Label sets of one family that are kept apart; events of further ones are counted as left out.
const MOST: usize = 10_000;
/// Cgroups of which it is remembered whose they were.
const MOST_CGROUPS: usize = 65_536;
/// Ports from here on are the kernel's choice (`ip_local_port_range`), unless somebody listens there.
const EPHEMERAL: u16 = 32_768;
/// Of an answer's flags: the response code.
const RESPONSE_CODE: u16 = 0x000f;

/// Takes events in, hands evidence out.
#[derive(Debug, Default)]
pub struct Past {
    books: Snapshot,
    observed: Observed,
    stories: Stories,
    cgroups: Cgroups,
    namespaces: BTreeSet<u32>,
    first_ns: u64,
    last_ns: u64,
    events: u64,
    left_out: u64,
}

/// Whose cgroups were.
#[derive(Debug, Default)]
struct Cgroups(HashMap<u64, Workload>);

impl Workloads for Cgroups {
    fn of(&mut self, cgroup: u64) -> Workload {
        self.0.get(&cgroup).copied().unwrap_or_default()
    }
}

impl Past {
    /// Takes in an event that happened at this wall-clock time, and what its owner's container and pod
    /// were. `context`: it is older than what was asked for, and tells only who listens.
    pub fn take(&mut self, event: &Event, wall_ns: u64, workload: Workload, context: bool) {
        if let Some(owner) = event.owner()
            && owner.cgroup != 0
            && !workload.is_empty()
            && self.cgroups.0.len() < MOST_CGROUPS
        {
            self.cgroups.0.insert(owner.cgroup, workload);
        }
        if let Event::Listener(change) = event {
            self.listener(change);
        }
        if context {
            return;
        }
        // The monotonic clock begins anew with each boot; one recording may hold several.
        let event = at(*event, wall_ns);
        if !matches!(event, Event::Listener(_)) {
            if self.events == 0 {
                self.first_ns = wall_ns;
            }
            self.first_ns = self.first_ns.min(wall_ns);
            self.last_ns = self.last_ns.max(wall_ns);
            self.events += 1;
            self.namespaces.insert(event.header().netns);
        }
        self.observed.take(&event);
        self.stories.take(&event, &mut self.cgroups);
        match &event {
            Event::Retransmit(event) => self.retransmit(event),
            Event::ListenDrop(event) => self.drop(event),
            Event::Connect(event) => self.connect(event),
            Event::Accept(event) => self.accept(event),
            Event::Reset(event) => self.reset(event),
            Event::Dns(event) => self.lookup(event),
            Event::Listener(_) => {}
        }
    }

    /// How many events were taken in.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What they tell. The window is from `since_ns` to `until_ns`, wall-clock ns; what is `None` is
    /// taken from the events.
    #[must_use]
    pub fn evidence(self, since_ns: Option<u64>, until_ns: Option<u64>) -> Evidence {
        let until_ns = until_ns.unwrap_or(self.last_ns);
        let since_ns = since_ns.unwrap_or(self.first_ns);
        let mut not_seen = vec![NotSeen {
            what: "recording".to_owned(),
            why: "it holds what went wrong, not how much went well: shares of all connections, \
                  segments and lookups are not known"
                .to_owned(),
        }];
        if self.left_out > 0 {
            not_seen.push(NotSeen {
                what: "recording".to_owned(),
                why: format!(
                    "{} events of more owners and ports than are kept apart",
                    self.left_out
                ),
            });
        }
        Evidence {
            source: Source::Recorded,
            window: Duration::from_nanos(until_ns.saturating_sub(since_ns)),
            until_ns,
            events: Some(self.events),
            namespaces: self.namespaces.len(),
            after: self.books,
            observed: self.observed,
            stories: self.stories.matching(usize::MAX, |_: &Story| true),
            not_seen,
            // Events have been given wall-clock times.
            clock: Some(ClockPair {
                monotonic_ns: until_ns,
                wall_ns: until_ns,
            }),
            ..Evidence::default()
        }
    }

    fn owner(&mut self, owner: &KernelOwner, netns: u32) -> Owner {
        Owner {
            netns,
            identity: 0,
            process: Comm::from_bytes(&owner.comm),
            workload: self.cgroups.of(owner.cgroup),
        }
    }

    fn has_room(&mut self, known: bool, kept: usize) -> bool {
        let room = known || kept < MOST;
        self.left_out += u64::from(!room);
        room
    }

    fn listener(&mut self, change: &ListenerChange) {
        let labels = ListenerLabels {
            owner: self.owner(&change.owner, change.header.netns),
            address: address(change.family, change.local_address),
            port: change.local_port,
        };
        if change.change == LISTENER_CLOSED
            || !self.has_room(
                self.books.listeners.contains_key(&labels),
                self.books.listeners.len(),
            )
        {
            return;
        }
        self.books.listeners.entry(labels).or_default().sockets += 1;
    }

    fn drop(&mut self, event: &ListenDrop) {
        let labels = self.dropping(event);
        let known = self.books.listeners.contains_key(&labels);
        if !self.has_room(known, self.books.listeners.len()) {
            return;
        }
        let listening = self.books.listeners.entry(labels).or_default();
        listening.length = event.ack_backlog.into();
        listening.limit = event.max_ack_backlog.into();
        listening.peak = listening.peak.max(event.ack_backlog.into());
        let stage = Stage::ALL.iter().position(|it| *it as u8 == event.stage);
        let reason = Reason::ALL.iter().position(|it| *it as u8 == event.cause);
        let slot = stage
            .and_then(|stage| listening.counts.drops.get_mut(stage))
            .zip(reason)
            .and_then(|(by_reason, reason)| by_reason.get_mut(reason));
        if let Some(slot) = slot {
            *slot += u64::from(event.drops);
        }
    }

    /// The listener of a drop: a packet shows the address that it went to, a listener on every
    /// address does not.
    fn dropping(&mut self, event: &ListenDrop) -> ListenerLabels {
        let labels = ListenerLabels {
            owner: self.owner(&event.owner, event.header.netns),
            address: address(event.ends.family, event.ends.local_address),
            port: event.ends.local_port,
        };
        let fits = |it: &&ListenerLabels| {
            it.owner.netns == labels.owner.netns
                && it.port == labels.port
                && (it.address == labels.address || it.address.is_unspecified())
                && (labels.owner.process.is_empty() || it.owner.process == labels.owner.process)
        };
        let known = self.books.listeners.keys().filter(fits);
        let best = known.max_by_key(|it| it.address == labels.address);
        best.copied().unwrap_or(labels)
    }

    fn retransmit(&mut self, event: &Retransmit) {
        let Ok(role) = Role::try_read_from_bytes(&[event.role]) else {
            return;
        };
        let labels = RetransmitLabels {
            owner: self.owner(&event.owner, event.header.netns),
            role,
            port: port(role, event.ends.local_port, event.ends.remote_port),
        };
        let known = self.books.retransmits.contains_key(&labels);
        if !self.has_room(known, self.books.retransmits.len()) {
            return;
        }
        let values = self.books.retransmits.entry(labels).or_default();
        if event.err != 0 {
            values.failures += 1;
        }
        if let Some(segments) = values.segments.get_mut(usize::from(event.kind)) {
            *segments += u64::from(event.segments);
        }
    }

    fn connect(&mut self, event: &Connect) {
        let labels = ConnectLabels {
            owner: self.owner(&event.owner, event.header.netns),
            port: port(Role::Client, 0, event.ends.remote_port),
        };
        let known = self.books.connects.contains_key(&labels);
        if !self.has_room(known, self.books.connects.len()) {
            return;
        }
        let values = self.books.connects.entry(labels).or_default();
        values.begun += 1;
        if event.failure == CONNECTED {
            observe(&mut values.latency, event.latency_ns);
            return;
        }
        let number = usize::from(event.failure).min(ConnectFailure::Other as usize);
        if let Some(failures) = values.failures.get_mut(number) {
            *failures += 1;
        }
    }

    fn accept(&mut self, event: &Accept) {
        let ends = &event.ends;
        let local = address(ends.family, ends.local_address);
        let netns = event.header.netns;
        let here = |it: &&ListenerLabels| {
            it.owner.netns == netns
                && it.port == ends.local_port
                && (it.address == local || it.address.is_unspecified())
        };
        let listener = self.books.listeners.keys().find(here).map(|it| it.address);
        if listener.is_none() {
            // Whose listener is not recorded: the process that accepted it stands for it.
            let labels = ListenerLabels {
                owner: self.owner(&event.owner, netns),
                address: local,
                port: ends.local_port,
            };
            if !self.has_room(false, self.books.listeners.len()) {
                return;
            }
            self.books.listeners.entry(labels).or_default();
        }
        let key = (netns, listener.unwrap_or(local), ends.local_port);
        let values = self.books.accepts.entry(key).or_default();
        values.established += 1;
        values.accepted += 1;
        observe(&mut values.latency, event.latency_ns);
    }

    fn reset(&mut self, event: &Reset) {
        let (Ok(role), Ok(direction), Ok(class)) = (
            Role::try_read_from_bytes(&[event.role]),
            Direction::try_read_from_bytes(&[event.direction]),
            ResetClass::try_read_from_bytes(&[event.class]),
        ) else {
            return;
        };
        let labels = ResetLabels {
            owner: self.owner(&event.owner, event.header.netns),
            role,
            port: port(role, event.ends.local_port, event.ends.remote_port),
            direction,
            state: event.state,
            class,
            reason: event.reason,
        };
        let known = self.books.resets.contains_key(&labels);
        if self.has_room(known, self.books.resets.len()) {
            *self.books.resets.entry(labels).or_default() += 1;
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "seconds in nanoseconds")]
    fn lookup(&mut self, event: &Dns) {
        let owner = self.owner(&event.lookup.owner, event.header.netns);
        let lookups = self.books.lookups.get_or_insert_default();
        let known = lookups.contains_key(&owner);
        let kept = lookups.len();
        if !self.has_room(known, kept) {
            return;
        }
        let lookups = self.books.lookups.get_or_insert_default();
        let sum = lookups.entry(owner).or_default();
        match event.outcome {
            // It has been told of as unanswered when its time was up.
            DNS_LATE => sum.counts.late += 1,
            DNS_ANSWERED => {
                let response = (event.answer_flags & RESPONSE_CODE).into();
                sum.add(Some(response), event.latency_ns as f64 / 1e9);
            }
            _ => sum.add(None, 0.0),
        }
    }
}

/// The event with another time.
fn at(mut event: Event, ktime_ns: u64) -> Event {
    let header = match &mut event {
        Event::Retransmit(event) => &mut event.header,
        Event::ListenDrop(event) => &mut event.header,
        Event::Listener(event) => &mut event.header,
        Event::Connect(event) => &mut event.header,
        Event::Accept(event) => &mut event.header,
        Event::Reset(event) => &mut event.header,
        Event::Dns(event) => &mut event.header,
    };
    header.ktime_ns = ktime_ns;
    event
}

/// The port that a label shows: a server's own, a client's remote one unless it is ephemeral.
pub(super) fn port(role: Role, local: u16, remote: u16) -> u16 {
    match role {
        Role::Server => local,
        Role::Client if remote >= EPHEMERAL => 0,
        Role::Client => remote,
    }
}

fn observe(latencies: &mut Latencies, ns: u64) {
    let bounds = LATENCY_BOUNDS_NS.iter();
    let index = bounds.take_while(|bound| **bound < ns).count();
    if let Some(bucket) = latencies.buckets.get_mut(index) {
        *bucket += 1;
    }
    latencies.sum_ns = latencies.sum_ns.saturating_add(ns);
}
