//! Takes the snapshot of a machine that the rules judge. Only reads; the one thing it makes is
//! an empty network namespace of its own for a moment, to see this kernel's defaults.

mod place;
mod poll;
mod read;
mod sockets;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::audit::counters;
use crate::audit::error::AuditError;
use crate::audit::kernel::Kernel;
use crate::audit::persistent::Persistent;
use crate::audit::snapshot::{
    CounterWindow, Counters, Defaults, Listener, Machine, Namespace, Settings, Softnet, State,
};
use crate::sys::netns::{self, Netns, NetnsError, NetnsId, NetnsWorker, Place};
use crate::sys::owner::SocketOwners;

/// Listeners for whose process is looked; the walk over all descriptors ends when all are found.
const MAX_OWNED: usize = 5000;

/// Which namespaces the report is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The host's.
    Host,
    /// Every one that can be found.
    #[default]
    All,
    /// That of a process.
    Process(u32),
    /// The one a path leads to, such as `/run/netns/blue`.
    Mount(PathBuf),
}

/// How to take a snapshot.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where processes and settings are found: `/proc`.
    pub proc_root: PathBuf,
    /// Whose persistent files are read.
    pub root: PathBuf,
    /// Which namespaces.
    pub which: Which,
    /// Whether to make a namespace for a moment to see this kernel's defaults.
    pub fresh_defaults: bool,
    /// Whether to look for the processes of listeners: a walk over all descriptors.
    pub owners: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            proc_root: PathBuf::from("/proc"),
            root: PathBuf::from("/"),
            which: Which::All,
            fresh_defaults: true,
            owners: true,
        }
    }
}

/// The root directory of the host: that of process 1 where it may be looked at (in a container
/// with the host's processes it is the host's), else the own.
#[must_use]
pub fn host_root(proc_root: &Path) -> PathBuf {
    let init = proc_root.join("1/root");
    if init.join("etc").is_dir() {
        init
    } else {
        PathBuf::from("/")
    }
}

/// A window that has begun: counters as they were at its start.
#[derive(Debug)]
pub struct Baseline {
    began: Instant,
    first: HashMap<NetnsId, read::First>,
}

/// Takes snapshots of one machine, again and again if need be.
#[derive(Debug)]
pub struct Collector {
    options: Options,
    worker: Worker,
    fresh: Option<Settings>,
    poll: poll::Poll,
}

/// The worker has no `Debug` of its own.
struct Worker(NetnsWorker);

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Collector {
    /// A collector. Asks the kernel for its defaults, once, if it is to.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let fresh = options
            .fresh_defaults
            .then(|| fresh_settings(&options.proc_root))
            .flatten();
        let worker = Worker(NetnsWorker::new(&options.proc_root));
        let poll = poll::Poll::new(&options.proc_root);
        Self {
            options,
            worker,
            fresh,
            poll,
        }
    }

    /// Ends the thread that visits namespaces; the next visit starts another, with the rights that
    /// its caller then has.
    pub fn rest(&self) {
        self.worker.0.rest();
    }

    /// Begins a window.
    ///
    /// # Errors
    /// As [`Collector::snapshot`].
    pub fn baseline(&self) -> Result<Baseline, AuditError> {
        let (host, others) = self.namespaces()?;
        let began = Instant::now();
        let mut first = HashMap::new();
        for ns in std::iter::once(&host).chain(&others) {
            let proc = self.options.proc_root.clone();
            if let Ok(look) = self.worker.0.run(ns, move || read::first(&proc)) {
                first.insert(ns.id, look);
            }
        }
        Ok(Baseline { began, first })
    }

    /// Takes a snapshot; with a baseline, its counters have a window.
    ///
    /// # Errors
    /// [`AuditError::Read`] when not even the own namespace or the kernel's release can be read,
    /// or the namespace asked for does not exist. Namespaces that cannot be entered, and those
    /// that go away, are in the snapshot with the reason.
    pub fn snapshot(&self, baseline: Option<&Baseline>) -> Result<Machine, AuditError> {
        let proc = &self.options.proc_root;
        let release = proc.join("sys/kernel/osrelease");
        let release = counters::read_text(&release).map_err(|source| AuditError::Read {
            path: release,
            source,
        })?;
        let (host, others) = self.namespaces()?;
        let mut host = self.namespace(&host, true, baseline);
        host.selected = matches!(self.options.which, Which::Host | Which::All);
        let mut others: Vec<Namespace> = others
            .iter()
            .map(|ns| self.namespace(ns, false, baseline))
            .collect();
        if let Some(path) = self.target()
            && others.iter().any(|ns| ns.state == State::Gone)
        {
            // Nothing was audited: that is no clean bill.
            return Err(AuditError::NoNamespace { path });
        }
        if !host.selected && others.is_empty() {
            // The process asked for lives in the host's namespace.
            host.selected = true;
        }
        if self.options.owners {
            name_listeners(proc, std::iter::once(&mut host).chain(&mut others));
        }
        Ok(Machine {
            kernel: Kernel::parse(&release),
            defaults: Defaults {
                fresh: self.fresh.clone(),
            },
            page_size: page_size(),
            persistent: Persistent::load(&self.options.root),
            host,
            others,
            hidden_processes: match self.options.which {
                Which::All => hidden_processes(proc),
                _ => 0,
            },
        })
    }

    /// A number for the settings of each namespace, by its inode: cheap, and another one when a
    /// setting is. When the result differs from the last one, it is time for a snapshot. The numbers
    /// mean nothing to another collector. With them, the CPU time that it took.
    ///
    /// # Errors
    /// As [`Collector::snapshot`]. Namespaces that cannot be entered are left out.
    pub fn poll(&self) -> Result<(BTreeMap<u32, u64>, Duration), AuditError> {
        let begun = poll::thread_time();
        let (host, others) = self.namespaces()?;
        let mut all = BTreeMap::new();
        let mut visits = Duration::ZERO;
        for ns in std::iter::once(&host).chain(&others) {
            let poll = self.poll.clone();
            let is_host = ns.id == host.id;
            let visit = move || {
                let begun = poll::thread_time();
                (
                    poll.print(is_host),
                    poll::thread_time().saturating_sub(begun),
                )
            };
            if let Ok((print, took)) = self.worker.0.run(ns, visit) {
                all.insert(ns.id.0, print);
                visits += took;
            }
        }
        Ok((all, visits + poll::thread_time().saturating_sub(begun)))
    }

    /// The way to the one namespace that was asked for, if it was one.
    fn target(&self) -> Option<PathBuf> {
        match &self.options.which {
            Which::Host | Which::All => None,
            Which::Process(pid) => {
                Some(self.options.proc_root.join(pid.to_string()).join("ns/net"))
            }
            Which::Mount(path) => Some(path.clone()),
        }
    }

    /// The host's namespace, and the others that were asked for.
    fn namespaces(&self) -> Result<(Netns, Vec<Netns>), AuditError> {
        let proc = &self.options.proc_root;
        let host = host(proc)?;
        let others = match &self.options.which {
            Which::Host => Vec::new(),
            Which::All => netns::discover(proc)
                .map_err(|error| AuditError::Read {
                    path: proc.clone(),
                    source: std::io::Error::other(error),
                })?
                .into_iter()
                .filter(|ns| ns.id != host.id)
                .collect(),
            Which::Process(pid) => {
                let path = proc.join(pid.to_string()).join("ns/net");
                let id = NetnsId::of_process(proc, *pid)
                    .map_err(|source| AuditError::Read { path, source })?;
                vec![Netns {
                    id,
                    place: Place::Process(*pid),
                    name: None,
                }]
            }
            Which::Mount(path) => {
                let id = mounted(path)?;
                vec![Netns {
                    id,
                    place: Place::Mount(path.clone()),
                    name: None,
                }]
            }
        };
        let others = others.into_iter().filter(|ns| ns.id != host.id).collect();
        Ok((host, others))
    }

    fn namespace(&self, netns: &Netns, is_host: bool, baseline: Option<&Baseline>) -> Namespace {
        let proc = self.options.proc_root.clone();
        let mut ns = Namespace::empty(netns.id.0, is_host);
        ns.owner = place::owner(&proc, netns);
        let visit = match self
            .worker
            .0
            .run(netns, move || read::visit(&proc, is_host))
        {
            Ok(visit) => visit,
            Err(NetnsError::Gone { .. }) => {
                ns.state = State::Gone;
                return ns;
            }
            Err(error) => {
                ns.state = State::Unreadable(error.to_string());
                return ns;
            }
        };
        let first = baseline.and_then(|b| Some((b.first.get(&netns.id)?, b.began.elapsed())));
        ns.settings = visit.settings;
        ns.sockets = visit.sockets;
        ns.neighbours = visit.neighbours;
        ns.sockstat = visit.sockstat;
        ns.unread = visit.unread;
        if is_host && let Some((dropped, squeezed)) = visit.softnet {
            let before = first.and_then(|(f, _)| f.softnet);
            ns.softnet = Some(Softnet {
                dropped,
                squeezed,
                dropped_delta: before.map(|(d, _)| dropped.saturating_sub(d)),
                squeezed_delta: before.map(|(_, s)| squeezed.saturating_sub(s)),
            });
        }
        if let (Some(sockets), Some((first, _))) = (&mut ns.sockets, first) {
            read::match_drops(&first.listeners, &mut sockets.listeners);
        }
        ns.counters = window(first, visit.counters);
        ns
    }
}

fn window(first: Option<(&read::First, Duration)>, last: Counters) -> CounterWindow {
    let Some((first, length)) = first else {
        return CounterWindow {
            first: None,
            last,
            length: None,
        };
    };
    CounterWindow {
        first: Some(first.counters.clone()),
        last,
        length: Some(length),
    }
}

/// The namespace of process 1, or the own one where that may not be looked at.
fn host(proc: &Path) -> Result<Netns, AuditError> {
    let of = |pid| {
        let id = NetnsId::of_process(proc, pid)?;
        Ok(Netns {
            id,
            place: Place::Process(pid),
            name: None,
        })
    };
    of(1)
        .or_else(|_: std::io::Error| of(std::process::id()))
        .map_err(|source| AuditError::Read {
            path: proc.join("self/ns/net"),
            source,
        })
}

/// How many processes do not show their namespace: without `CAP_SYS_PTRACE`, those of others.
fn hidden_processes(proc: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(proc) else {
        return 0;
    };
    let hidden = |pid: &u32| {
        NetnsId::of_process(proc, *pid)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    let found: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(hidden)
        .collect();
    // One that is in the middle of execve() or of its end is hidden for a moment.
    found.into_iter().filter(hidden).count()
}

/// The namespace that `path` leads to. It is not opened: a pipe would be waited for.
fn mounted(path: &Path) -> Result<NetnsId, AuditError> {
    use std::os::unix::fs::MetadataExt;
    let failed = |source| AuditError::Read {
        path: path.to_owned(),
        source,
    };
    let none = || AuditError::NoNamespace {
        path: path.to_owned(),
    };
    let inode = std::fs::metadata(path).map_err(failed)?.ino();
    let kind = statfs(path).map_err(|errno| failed(errno.into()))?;
    if kind.filesystem_type() != NSFS_MAGIC {
        return Err(none());
    }
    u32::try_from(inode).map(NetnsId).map_err(|_| none())
}

/// What this kernel gives a namespace that nobody has tuned: makes one, on a thread that ends
/// with it. `None` without the right to.
fn fresh_settings(proc: &Path) -> Option<Settings> {
    let proc = proc.to_owned();
    let thread = thread::Builder::new()
        .name("netobs-fresh".to_owned())
        .spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).ok()?;
            Some(read::settings(&proc, false))
        });
    thread.ok()?.join().ok()?
}

fn page_size() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}

/// Names the processes of listeners; of many, the fullest first.
fn name_listeners<'a>(proc: &Path, namespaces: impl Iterator<Item = &'a mut Namespace>) {
    let mut listeners: Vec<&mut Listener> = namespaces
        .filter_map(|ns| ns.sockets.as_mut())
        .flat_map(|sockets| &mut sockets.listeners)
        .filter(|l| l.inode != 0)
        .collect();
    listeners.sort_by_key(|l| std::cmp::Reverse((l.full(), l.new_drops(), l.queue)));
    listeners.truncate(MAX_OWNED);
    let wanted: HashSet<u64> = listeners.iter().map(|l| u64::from(l.inode)).collect();
    let Ok(found) = SocketOwners::scan(proc, &wanted) else {
        return;
    };
    let names: BTreeMap<u64, String> = found
        .into_iter()
        .map(|(inode, owner)| (inode, owner.comm.to_string()))
        .collect();
    for listener in listeners {
        listener.process = names.get(&u64::from(listener.inode)).cloned();
    }
}

/// The settings of a fixture's `/proc`, as the host's.
#[cfg(test)]
pub(super) fn read_fixture(proc: &Path) -> Settings {
    read::settings(proc, true)
}
