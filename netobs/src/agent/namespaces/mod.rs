//! The network namespaces that are observed, and the kernel's counters in each.
//!
//! No descriptor of a namespace is kept: it would keep a dead namespace alive.

mod observed;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    bpf::{IterError, SocketIter},
    ledger::{
        listeners::{KernelListenCounters, ListenerBook, ListenerLabels, ListenerValues},
        namespace::Namespace,
        retransmits::RetransmitBook,
        series::Series,
    },
    metrics::NetnsView,
    sys::{
        netns::{self, Finder, Netns, NetnsError, NetnsWorker, Thoroughness, cookie},
        netstat::{Counter, Counters},
    },
};
use observed::Observed;

/// Ways to a namespace that are tried for one reading of its counters.
const MOST_WAYS: u32 = 3;
/// Readings of a namespace's counters that may fail in a row before what needs them goes without.
const MOST_FAILURES: u32 = 10;

/// Identities kept of namespaces that were not discovered yet.
const MOST_HEARD_OF: usize = 4096;

/// The counters that are claimed to add up.
const BALANCED: [Counter; 4] = [
    Counter::ListenDrops,
    Counter::ListenOverflows,
    Counter::RetransSegs,
    Counter::TcpSynRetrans,
];

/// A namespace could not be walked for sockets.
#[derive(Debug, thiserror::Error)]
pub(super) enum WalkError {
    #[error(transparent)]
    Visit(#[from] NetnsError),
    #[error(transparent)]
    Iter(#[from] IterError),
}

/// What [`Namespaces::discover`] found.
#[derive(Debug, Default)]
pub(super) struct Discovered {
    /// Namespaces that were not there before.
    pub(super) new: Vec<u32>,
}

/// What the kernel's own counters of one namespace say of its listeners.
pub(super) enum ListenReading {
    /// Since the baseline.
    Read(KernelListenCounters),
    /// They could not be read, and may be next time.
    NotNow,
    /// Nothing, for good: it is gone, another one has its number, or it cannot be read.
    Never,
}

/// Where the count of a namespace's counters begins.
enum Base {
    /// At zero: it is younger than the agent.
    Birth,
    /// At the agent's start.
    At(Box<Counters>),
    /// It could not be read then: nothing is held against it.
    Unknown,
}

/// Every namespace that is observed.
pub(super) struct Namespaces {
    worker: NetnsWorker,
    finder: Finder,
    observed: BTreeMap<u32, Observed>,
    /// Whether a namespace's cookie is the identity that the kernel side knows it by.
    cookies: bool,
    /// Latest identities that the kernel side has told of numbers not discovered yet.
    heard_of: HashMap<u32, u64>,
    /// Those that were the latest before.
    outlived: Vec<Namespace>,
    /// Something was counted in a namespace that is not known to be there.
    stranger: bool,
    /// When each listener's series was last seen with a socket.
    listened: HashMap<ListenerLabels, Instant>,
    baselined: bool,
}

impl Namespaces {
    /// `cookies`: whether the kernel side knows namespaces by their cookies.
    pub(super) fn new(proc_root: &Path, cookies: bool) -> Self {
        Self {
            worker: NetnsWorker::new(proc_root),
            finder: Finder::default(),
            observed: BTreeMap::new(),
            cookies,
            heard_of: HashMap::new(),
            outlived: Vec::new(),
            stranger: false,
            listened: HashMap::new(),
            baselined: false,
        }
    }

    /// Ends the thread that visits namespaces; the next visit starts another.
    pub(super) fn rest(&self) {
        self.worker.rest();
    }

    /// Looks for namespaces.
    pub(super) fn discover(
        &mut self,
        thoroughness: Thoroughness,
    ) -> Result<Discovered, NetnsError> {
        let found = self.finder.find(self.worker.proc_root(), thoroughness)?;
        let now = Instant::now();
        let mut discovered = Discovered::default();
        let present: HashSet<u32> = found.iter().map(|netns| netns.id.0).collect();
        for netns in found {
            let number = netns.id.0;
            match self.observed.get_mut(&number) {
                Some(known) => {
                    known.netns = netns;
                    if known.gone.is_some() {
                        known.come_back();
                        discovered.new.push(number);
                    }
                }
                None => {
                    discovered.new.push(number);
                    let mut new = Observed::new(netns);
                    new.adopt(self.heard_of.remove(&number).unwrap_or(0), now);
                    self.observed.insert(number, new);
                }
            }
        }
        for (inode, observed) in &mut self.observed {
            if !present.contains(inode) {
                observed.gone.get_or_insert(now);
            }
        }
        Ok(discovered)
    }

    /// Walks a namespace's sockets, so that the kernel side takes note of them. One that has ended
    /// meanwhile has none.
    pub(super) fn walk(&mut self, netns: u32, sockets: &SocketIter) -> Result<(), WalkError> {
        let sockets = sockets.clone();
        let visited = self.visit(netns, move || {
            (cookie::of_this_thread(), sockets.walk_this_namespace())
        })?;
        let Some((cookie, walked)) = visited else {
            return Ok(());
        };
        if self.cookies
            && let Some(observed) = self.observed.get_mut(&netns)
        {
            observed.adopt(cookie.unwrap_or(0), Instant::now());
        }
        Ok(walked?)
    }

    /// Does something in a namespace. The process that it was reached by may have ended: then another
    /// way to it is looked for, which may end as soon; or its number may be that of one that nobody may
    /// look at. `None` when it is gone.
    fn visit<T, F>(&mut self, number: u32, work: F) -> Result<Option<T>, NetnsError>
    where
        F: FnOnce() -> T + Clone + Send + 'static,
        T: Send + 'static,
    {
        for way in 1.. {
            let Some(observed) = self.observed.get(&number) else {
                break;
            };
            match self.worker.run(&observed.netns, work.clone()) {
                Err(NetnsError::Gone { .. } | NetnsError::Permission { .. }) if way < MOST_WAYS => {
                    self.find_again();
                }
                result => return result.map(Some),
            }
            let there = |observed: &Observed| observed.gone.is_none();
            if !self.observed.get(&number).is_some_and(there) {
                break;
            }
        }
        Ok(None)
    }

    /// Takes note that the kernel side knows of a namespace. Whether it is the one that has the
    /// number now is asked of the namespace itself, where that can be done.
    pub(super) fn hear_of(&mut self, namespace: Namespace) {
        let Namespace { number, identity } = namespace;
        let Some(observed) = self.observed.get(&number) else {
            if self.heard_of.len() >= MOST_HEARD_OF {
                self.heard_of.clear();
            }
            let before = self.heard_of.insert(number, identity);
            self.stranger |= before != Some(identity);
            if let Some(before) = before.filter(|before| *before != identity) {
                self.outlived.push(Namespace {
                    number,
                    identity: before,
                });
            }
            return;
        };
        if observed.is(identity) || observed.had(identity) {
            return;
        }
        let asked = if self.cookies { self.ask(number) } else { None };
        if let Some(observed) = self.observed.get_mut(&number) {
            self.stranger |= observed.gone.is_some();
            observed.hear_of(identity, asked, Instant::now());
        }
    }

    /// Takes note of the namespaces of open listeners, each with the time at which the listener was
    /// opened. Only where a namespace cannot be asked who it is: counts are read now and then, and
    /// those of one that has ended may be read after the first ones of the next with its number.
    pub(super) fn vouch(&mut self, listeners: impl Iterator<Item = (Namespace, u64)>) {
        if self.cookies {
            return;
        }
        let mut latest: HashMap<u32, (u64, u64)> = HashMap::new();
        for (namespace, opened_ns) in listeners.filter(|(namespace, _)| namespace.identity != 0) {
            let known = latest.entry(namespace.number).or_default();
            *known = (*known).max((opened_ns, namespace.identity));
        }
        let now = Instant::now();
        for (number, observed) in &mut self.observed {
            observed.vouch(latest.get(number).map(|(_, identity)| *identity), now);
        }
    }

    /// Asks the namespace that has a number now for its cookie.
    fn ask(&mut self, number: u32) -> Option<u64> {
        let visit = |this: &Self| {
            let observed = this.observed.get(&number)?;
            Some(this.worker.run(&observed.netns, cookie::of_this_thread))
        };
        let mut answer = visit(self)?;
        if matches!(answer, Err(NetnsError::Gone { .. })) {
            self.find_again();
            answer = visit(self)?;
        }
        answer.ok().flatten()
    }

    /// Whether something was counted, since this was last asked, in a namespace that is not known
    /// to be there.
    pub(super) fn take_stranger(&mut self) -> bool {
        std::mem::take(&mut self.stranger)
    }

    /// Namespaces whose numbers others have taken since this was last asked.
    pub(super) fn take_ended(&mut self) -> Vec<Namespace> {
        let mut ended = std::mem::take(&mut self.outlived);
        ended.extend(self.observed.values_mut().flat_map(Observed::take_ended));
        ended
    }

    /// Whether that namespace has its number still, as far as is known: what comes of another is late.
    pub(super) fn has(&self, namespace: Namespace) -> bool {
        match self.observed.get(&namespace.number) {
            Some(observed) => !observed.had(namespace.identity),
            None => {
                let latest = self.heard_of.get(&namespace.number);
                latest.is_none_or(|latest| *latest == namespace.identity)
            }
        }
    }

    /// Whether a namespace is among those observed, and was still there when last looked for.
    pub(super) fn knows(&self, netns: u32) -> bool {
        let observed = self.observed.get(&netns);
        observed.is_some_and(|observed| observed.gone.is_none())
    }

    /// Whether a namespace is among those observed, gone ones that linger included.
    pub(super) fn is_observed(&self, netns: u32) -> bool {
        self.observed.contains_key(&netns)
    }

    /// Numbers of all namespaces.
    pub(super) fn all(&self) -> HashSet<u32> {
        self.observed.keys().copied().collect()
    }

    /// Begins the count: from now on the kernel's counters are held against what is attributed.
    pub(super) fn baseline(&mut self, retransmits: &RetransmitBook) {
        for (inode, observed) in &mut self.observed {
            let reading = netns::read_counters(&self.worker, &observed.netns);
            observed.base = reading.map_or(Base::Unknown, |reading| {
                Base::At(Box::new(reading.counters))
            });
            observed.base_retransmits = retransmits.sums(*inode);
        }
        self.baselined = true;
    }

    /// What the kernel has counted of listeners in a namespace since its baseline.
    pub(super) fn listen_counters(&mut self, of: Namespace) -> ListenReading {
        let counters = self.read(of.number);
        let Some(observed) = self.observed.get(&of.number) else {
            return ListenReading::Never;
        };
        let Some(counters) = counters else {
            return if observed.gone.is_none() && observed.failures < MOST_FAILURES {
                ListenReading::NotNow
            } else {
                ListenReading::Never
            };
        };
        if observed.had(of.identity) {
            return ListenReading::Never;
        }
        let since_base = |counter| observed.since_base(&counters, counter);
        let read = || {
            Some(KernelListenCounters {
                drops: since_base(Counter::ListenDrops)?,
                overflows: since_base(Counter::ListenOverflows)?,
                syn_queue_full: since_base(Counter::TcpReqQFullDrop)?,
            })
        };
        read().map_or(ListenReading::Never, ListenReading::Read)
    }

    /// First of the two reads of [`Balance`].
    pub(super) fn read_before(&mut self) {
        let there: Vec<u32> = self
            .observed
            .iter()
            .filter(|(_, observed)| observed.gone.is_none())
            .map(|(inode, _)| *inode)
            .collect();
        for inode in there {
            let before = self.read(inode);
            if let Some(observed) = self.observed.get_mut(&inode) {
                observed.before = before;
            }
        }
    }

    /// Namespaces that have taken the number of one that is gone, since this was last asked, where
    /// identities cannot be told. Their
    /// retransmissions are counted from what was attributed to the number until now.
    pub(super) fn take_reborn(&mut self, retransmits: &RetransmitBook) -> Vec<u32> {
        let reborn = self
            .observed
            .iter_mut()
            .filter(|(_, observed)| observed.reborn);
        reborn
            .map(|(inode, observed)| {
                observed.reborn = false;
                observed.base_retransmits = retransmits.sums(*inode);
                *inode
            })
            .collect()
    }

    /// Reads a namespace's counters, and takes note of them.
    fn read(&mut self, inode: u32) -> Option<Counters> {
        let reading = self.try_read(inode);
        let now = Instant::now();
        let observed = self.observed.get_mut(&inode)?;
        let Some(reading) = reading else {
            observed.failures = observed.failures.saturating_add(1);
            return None;
        };
        observed.failures = 0;
        if self.cookies {
            observed.adopt(reading.cookie.unwrap_or(0), now);
        }
        observed.note(reading.counters, now);
        Some(reading.counters)
    }

    /// Reads a namespace's counters. The process that it was reached by may have ended: then
    /// another way to it is looked for, which may end as soon.
    fn try_read(&mut self, inode: u32) -> Option<netns::Reading> {
        for _ in 0..MOST_WAYS {
            let observed = self.observed.get(&inode)?;
            match netns::read_counters(&self.worker, &observed.netns) {
                Err(NetnsError::Gone { .. }) => {
                    self.find_again();
                    if self.observed.get(&inode)?.gone.is_some() {
                        return None;
                    }
                }
                result => return result.ok(),
            }
        }
        None
    }

    /// Finds ways to the namespaces that are known, and which of them are gone.
    fn find_again(&mut self) {
        let Ok(found) = netns::discover(self.worker.proc_root()) else {
            return;
        };
        let mut found: HashMap<u32, Netns> =
            found.into_iter().map(|netns| (netns.id.0, netns)).collect();
        let now = Instant::now();
        for (inode, observed) in &mut self.observed {
            match found.remove(inode) {
                Some(netns) => observed.netns = netns,
                // Found again, when it was gone, by the next discovery only: it has to be walked.
                None => {
                    observed.gone.get_or_insert(now);
                }
            }
        }
    }

    /// Second read, and the differences to what the books have attributed in between.
    pub(super) fn read_after(&mut self, listeners: &ListenerBook, retransmits: &RetransmitBook) {
        let read: Vec<(u32, u64, Counters)> = self
            .observed
            .iter_mut()
            .filter_map(|(inode, observed)| Some((*inode, observed.life, observed.before.take()?)))
            .collect();
        for (inode, life, before) in read {
            let after = self.read(inode);
            let Some(observed) = self.observed.get_mut(&inode) else {
                continue;
            };
            if observed.life != life {
                // Another one has the number since the first read: the next scrape compares.
                continue;
            }
            let Some(after) = after else {
                continue;
            };
            let (listen, sent_again) = (listeners.sums(inode), retransmits.sums(inode));
            observed.compare(&before, after, listen, sent_again);
        }
    }

    /// What a scrape shows.
    pub(super) fn views(&self) -> Vec<NetnsView> {
        self.observed
            .iter()
            .filter_map(|(inode, observed)| {
                Some(NetnsView {
                    netns: *inode,
                    counters: observed.latest?,
                    unattributed: if self.baselined {
                        observed.unattributed.clone()
                    } else {
                        Vec::new()
                    },
                })
            })
            .collect()
    }

    /// How many could not be read at the last try.
    pub(super) fn unreadable(&self) -> u64 {
        self.observed
            .values()
            .filter(|o| o.gone.is_none() && o.failures > 0)
            .count() as u64
    }

    /// Whether there are namespaces that have been gone for so long.
    pub(super) fn has_expired(&self, linger: Duration) -> bool {
        let mut all = self.observed.values();
        all.any(|observed| observed.gone.is_some_and(|gone| gone.elapsed() > linger))
    }

    /// Forgets namespaces that have been gone for so long, and names them.
    pub(super) fn take_expired(&mut self, linger: Duration) -> HashSet<u32> {
        for observed in self.observed.values_mut() {
            observed.forget_past(linger);
        }
        let expired: HashSet<u32> = self
            .observed
            .iter()
            .filter(|(_, observed)| observed.gone.is_some_and(|gone| gone.elapsed() > linger))
            .map(|(inode, _)| *inode)
            .collect();
        self.observed.retain(|inode, _| !expired.contains(inode));
        expired
    }

    /// Notes which series have sockets now.
    pub(super) fn note_listeners(&mut self, series: &Series<ListenerLabels, ListenerValues>) {
        let now = Instant::now();
        let mut listened = HashMap::new();
        for (labels, values) in series.iter() {
            let Some(labels) = labels else { continue };
            let last = if values.sockets > 0 {
                now
            } else {
                self.listened.get(labels).copied().unwrap_or(now)
            };
            listened.insert(*labels, last);
        }
        self.listened = listened;
    }

    /// For how long a series has had no socket.
    pub(super) fn quiet_for(&self, labels: &ListenerLabels) -> Duration {
        self.listened
            .get(labels)
            .map_or(Duration::ZERO, Instant::elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns::{NetnsId, Place};

    /// Knows a namespace by a process that does not exist.
    fn lost(id: NetnsId) -> Namespaces {
        let mut namespaces = Namespaces::new(Path::new("/proc"), false);
        let netns = Netns {
            id,
            place: Place::Process(u32::MAX),
            name: None,
        };
        namespaces.observed.insert(id.0, Observed::new(netns));
        namespaces
    }

    #[test]
    fn a_namespace_whose_process_has_ended_is_reached_by_another() {
        let here = NetnsId::of_this_thread(Path::new("/proc")).unwrap();
        let mut namespaces = lost(here);
        assert_eq!(namespaces.visit(here.0, || 7).unwrap(), Some(7));
    }

    #[test]
    fn a_namespace_that_has_ended_is_no_failure() {
        let mut namespaces = lost(NetnsId(1));
        assert_eq!(namespaces.visit(1, || 7).unwrap(), None);
        assert!(!namespaces.knows(1));
        assert_eq!(namespaces.visit(2, || 7).unwrap(), None);
    }
}
