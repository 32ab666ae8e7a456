//! The network namespaces that are observed, and the kernel's counters in each.
//!
//! No descriptor of a namespace is kept: it would keep a dead namespace alive.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    bpf::{IterError, SocketIter},
    ledger::{
        balance::Balance,
        listeners::{KernelListenCounters, ListenerBook, ListenerLabels, ListenerValues},
        retransmits::{RetransmitBook, RetransmitSums},
        series::Series,
    },
    metrics::NetnsView,
    sys::{
        netns::{self, Netns, NetnsError, NetnsWorker},
        netstat::{Counter, Counters},
    },
};

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

/// Where the count of a namespace's counters begins.
enum Base {
    /// At zero: it is younger than the agent.
    Birth,
    /// At the agent's start.
    At(Box<Counters>),
    /// It could not be read then: nothing is held against it.
    Unknown,
}

/// One namespace.
struct Observed {
    netns: Netns,
    /// Where the count of the kernel's counters begins.
    base: Base,
    /// What had been attributed then.
    base_retransmits: RetransmitSums,
    before: Option<Counters>,
    latest: Option<Counters>,
    /// The newest reading, to notice that the inode number now belongs to another namespace.
    newest: Option<Counters>,
    /// It was noticed, and the books do not know yet.
    reborn: bool,
    unattributed: Vec<(Counter, i64)>,
    gone: Option<Instant>,
    readable: bool,
}

impl Observed {
    fn since_base(&self, counters: &Counters, counter: Counter) -> Option<u64> {
        let now = counters.get(counter)?;
        match &self.base {
            Base::Unknown => None,
            Base::Birth => Some(now),
            Base::At(base) => Some(now.saturating_sub(base.get(counter)?)),
        }
    }

    /// Takes note of a reading. A namespace's counters never fall: if one did, the number has been
    /// given to another namespace, which began at zero.
    fn note(&mut self, counters: Counters) {
        let fell = |newest: &Counters| {
            let lower = |counter: &Counter| newest.get(*counter) > counters.get(*counter);
            Counter::ALL.iter().any(lower)
        };
        if self.newest.as_ref().is_some_and(fell) {
            self.begin_anew();
        }
        self.newest = Some(counters);
    }

    /// Begins the count of another namespace that has the same number.
    fn begin_anew(&mut self) {
        self.base = Base::Birth;
        (self.before, self.latest, self.newest) = (None, None, None);
        self.reborn = true;
    }
}

/// Every namespace that is observed.
pub(super) struct Namespaces {
    worker: NetnsWorker,
    observed: BTreeMap<u32, Observed>,
    /// When each listener's series was last seen with a socket.
    listened: HashMap<ListenerLabels, Instant>,
    baselined: bool,
}

impl Namespaces {
    pub(super) fn new(proc_root: &Path) -> Self {
        Self {
            worker: NetnsWorker::new(proc_root),
            observed: BTreeMap::new(),
            listened: HashMap::new(),
            baselined: false,
        }
    }

    /// Ends the thread that visits namespaces; the next visit starts another.
    pub(super) fn rest(&self) {
        self.worker.rest();
    }

    /// Looks for namespaces.
    pub(super) fn discover(&mut self) -> Result<Discovered, NetnsError> {
        let found = netns::discover(self.worker.proc_root())?;
        let now = Instant::now();
        let mut discovered = Discovered::default();
        let present: HashSet<u32> = found.iter().map(|netns| netns.id.0).collect();
        for netns in found {
            match self.observed.get_mut(&netns.id.0) {
                Some(known) => {
                    known.netns = netns;
                    if known.gone.take().is_some() {
                        known.begin_anew();
                    }
                }
                None => {
                    discovered.new.push(netns.id.0);
                    self.observed.insert(
                        netns.id.0,
                        Observed {
                            netns,
                            base: Base::Birth,
                            base_retransmits: RetransmitSums::default(),
                            before: None,
                            latest: None,
                            newest: None,
                            reborn: false,
                            unattributed: Vec::new(),
                            gone: None,
                            readable: true,
                        },
                    );
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

    /// Walks a namespace's sockets, so that the kernel side takes note of them.
    pub(super) fn walk(&self, netns: u32, sockets: &SocketIter) -> Result<(), WalkError> {
        let Some(observed) = self.observed.get(&netns) else {
            return Ok(());
        };
        let sockets = sockets.clone();
        Ok(self
            .worker
            .run(&observed.netns, move || sockets.walk_this_namespace())??)
    }

    /// Whether a namespace is among those observed, and was still there when last looked for.
    pub(super) fn knows(&self, netns: u32) -> bool {
        let observed = self.observed.get(&netns);
        observed.is_some_and(|observed| observed.gone.is_none())
    }

    /// Numbers of all namespaces.
    pub(super) fn all(&self) -> HashSet<u32> {
        self.observed.keys().copied().collect()
    }

    /// Begins the count: from now on the kernel's counters are held against what is attributed.
    pub(super) fn baseline(&mut self, retransmits: &RetransmitBook) {
        for (inode, observed) in &mut self.observed {
            observed.base = netns::read_counters(&self.worker, &observed.netns)
                .map_or(Base::Unknown, |counters| Base::At(Box::new(counters)));
            observed.base_retransmits = retransmits.sums(*inode);
        }
        self.baselined = true;
    }

    /// What the kernel has counted of listeners in a namespace since its baseline.
    pub(super) fn listen_counters(&mut self, netns: u32) -> Option<KernelListenCounters> {
        let counters = self.read(netns)?;
        let observed = self.observed.get(&netns)?;
        Some(KernelListenCounters {
            drops: observed.since_base(&counters, Counter::ListenDrops)?,
            overflows: observed.since_base(&counters, Counter::ListenOverflows)?,
            syn_queue_full: observed.since_base(&counters, Counter::TcpReqQFullDrop)?,
        })
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
                observed.readable = before.is_some();
                observed.before = before;
            }
        }
    }

    /// Namespaces that have taken the number of one that is gone, since this was last asked. Their
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
        let counters = self.try_read(inode)?;
        self.observed.get_mut(&inode)?.note(counters);
        Some(counters)
    }

    /// Reads a namespace's counters. The process that it was reached by may have ended: then
    /// another way to it is looked for.
    fn try_read(&mut self, inode: u32) -> Option<Counters> {
        let observed = self.observed.get(&inode)?;
        match netns::read_counters(&self.worker, &observed.netns) {
            Err(NetnsError::Gone { .. }) => {
                self.find_again();
                let observed = self.observed.get(&inode)?;
                if observed.gone.is_some() {
                    return None;
                }
                netns::read_counters(&self.worker, &observed.netns).ok()
            }
            result => result.ok(),
        }
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
                None => {
                    observed.gone.get_or_insert(now);
                }
            }
        }
    }

    /// Second read, and the differences to what the books have attributed in between.
    pub(super) fn read_after(&mut self, listeners: &ListenerBook, retransmits: &RetransmitBook) {
        let read: Vec<(u32, Counters)> = self
            .observed
            .iter_mut()
            .filter_map(|(inode, observed)| Some((*inode, observed.before.take()?)))
            .collect();
        for (inode, before) in read {
            let after = self.read(inode);
            let Some(observed) = self.observed.get_mut(&inode) else {
                continue;
            };
            let Some(after) = after else {
                observed.readable = false;
                continue;
            };
            let listen = listeners.sums(inode);
            let retransmits = retransmits.sums(inode);
            let base = observed.base_retransmits;
            let balances = BALANCED.iter().filter_map(|counter| {
                let attributed = match counter {
                    Counter::ListenDrops => listen.drops,
                    Counter::ListenOverflows => listen.overflows,
                    Counter::RetransSegs => retransmits.segments.saturating_sub(base.segments),
                    _ => retransmits.syn_segments.saturating_sub(base.syn_segments),
                };
                let balance = Balance {
                    before: observed.since_base(&before, *counter)?,
                    after: observed.since_base(&after, *counter)?,
                    attributed,
                };
                Some((*counter, balance.unattributed()))
            });
            let unattributed = balances.collect();
            observed.unattributed = unattributed;
            observed.latest = Some(after);
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
            .filter(|o| o.gone.is_none() && !o.readable)
            .count() as u64
    }

    /// Forgets namespaces that have been gone for so long, and names them.
    pub(super) fn take_expired(&mut self, linger: Duration) -> HashSet<u32> {
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
