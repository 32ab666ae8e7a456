//! Everything a rule may look at, as plain data: no rule reads a file.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use crate::audit::kernel::Kernel;
use crate::audit::keys::{self, Reach};
use crate::audit::persistent::Persistent;
use crate::audit::value::Reading;

/// Readings by dotted name.
pub type Settings = BTreeMap<&'static str, Reading>;

/// Kernel counters by name, such as `TcpExt.ListenOverflows`.
pub type Counters = BTreeMap<String, u64>;

/// One machine, as far as it could be seen.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The running kernel.
    pub kernel: Kernel,
    /// What this kernel gives a namespace that nobody tuned.
    pub defaults: Defaults,
    /// Bytes in a page, for `tcp_mem`.
    pub page_size: u64,
    /// The configuration that a reboot would apply.
    pub persistent: Persistent,
    /// The host's namespace. Node-wide settings are in its settings.
    pub host: Namespace,
    /// Every other namespace that was asked for.
    pub others: Vec<Namespace>,
    /// Processes whose namespace may not be seen, when every namespace was asked for: there may
    /// be namespaces that are not in `others`.
    pub hidden_processes: usize,
}

impl Machine {
    /// Every namespace that the report is about.
    pub fn selected(&self) -> impl Iterator<Item = &Namespace> {
        std::iter::once(&self.host)
            .chain(&self.others)
            .filter(|ns| ns.selected)
    }

    /// Takes in what listeners asked `listen()` for, by the inode of their socket. `sock_diag` does
    /// not tell: what the kernel keeps is cut to `somaxconn` already.
    pub fn take_listen_arguments(&mut self, asked: &HashMap<u64, u32>) {
        let sockets = std::iter::once(&mut self.host)
            .chain(&mut self.others)
            .filter_map(|ns| ns.sockets.as_mut());
        for listener in sockets.flat_map(|sockets| &mut sockets.listeners) {
            listener.asked = asked.get(&u64::from(listener.inode)).copied();
        }
    }
}

/// Defaults as a fresh namespace of this kernel showed them.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// Readings from a namespace made for the purpose; `None` where none could be made.
    pub fresh: Option<Settings>,
}

/// A default and where it is known from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelDefault {
    /// The value.
    pub value: String,
    /// `fresh_namespace`, `initial_namespace` or `documentation`.
    pub source: &'static str,
}

impl Defaults {
    /// The default of `key`, best source first.
    ///
    /// Vendors patch defaults, so a namespace that the kernel has just made is believed
    /// over the documentation.
    #[must_use]
    pub fn of(&self, kernel: &Kernel, key: &str) -> Option<KernelDefault> {
        let known = keys::find(key)?;
        let fresh = self
            .fresh
            .as_ref()
            .and_then(|fresh| fresh.get(key)?.value());
        match (known.reach, fresh) {
            (Reach::Namespace, Some(value)) if key != "net.netfilter.nf_conntrack_count" => {
                Some(KernelDefault {
                    value,
                    source: "fresh_namespace",
                })
            }
            (Reach::Inherited, Some(value)) => Some(KernelDefault {
                value,
                source: "initial_namespace",
            }),
            _ => kernel.pick(known.defaults).map(|value| KernelDefault {
                value: value.to_owned(),
                source: "documentation",
            }),
        }
    }
}

/// Whether a namespace could be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It was read.
    Audited,
    /// It went away during the audit. Nothing is left to be said about it.
    Gone,
    /// It could not be entered; the reason, in words.
    Unreadable(String),
}

/// Who lives in a namespace, as far as known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// A process in it.
    pub pid: Option<u32>,
    /// That process's name.
    pub process: Option<String>,
    /// First 12 digits of the container id.
    pub container_id: Option<String>,
    /// Kubernetes pod uid.
    pub pod_uid: Option<String>,
    /// A path it is mounted on, such as `/run/netns/blue`.
    pub path: Option<String>,
    /// Resolved names, as `namespace/pod`.
    pub pod: Option<String>,
}

/// One network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Its inode number.
    pub inode: u32,
    /// True for the host's own.
    pub host: bool,
    /// True when the report is about it; the host's is read in any case.
    pub selected: bool,
    /// Whether it could be read.
    pub state: State,
    /// Who lives in it.
    pub owner: Owner,
    /// The settings.
    pub settings: Settings,
    /// Its counters.
    pub counters: CounterWindow,
    /// Its TCP sockets; `None` where they could not be listed.
    pub sockets: Option<Sockets>,
    /// IPv4 neighbour entries of this namespace.
    pub neighbours: Option<u64>,
    /// Per-CPU backlog counters, summed: host only.
    pub softnet: Option<Softnet>,
    /// `/proc/net/sockstat`.
    pub sockstat: Option<Sockstat>,
    /// What, other than settings, is there and could not be read.
    pub unread: Vec<&'static str>,
}

impl Namespace {
    /// A namespace about which nothing is known yet.
    #[must_use]
    pub fn empty(inode: u32, host: bool) -> Self {
        Self {
            inode,
            host,
            selected: true,
            state: State::Audited,
            owner: Owner::default(),
            settings: Settings::new(),
            counters: CounterWindow::default(),
            sockets: None,
            neighbours: None,
            softnet: None,
            sockstat: None,
            unread: Vec::new(),
        }
    }

    /// A short name for readers: pod, path, container, process, or the inode.
    #[must_use]
    pub fn name(&self) -> String {
        if self.host {
            return "host".to_owned();
        }
        let owner = &self.owner;
        if let Some(pod) = &owner.pod {
            return format!("pod {pod}");
        }
        if let Some(uid) = &owner.pod_uid {
            return format!("pod {uid}");
        }
        if let Some(container) = &owner.container_id {
            return format!("container {container}");
        }
        if let Some(path) = &owner.path {
            return path.clone();
        }
        match (&owner.process, owner.pid) {
            (Some(process), Some(pid)) => format!("{process} (pid {pid})"),
            (None, Some(pid)) => format!("pid {pid}"),
            _ => format!("netns {}", self.inode),
        }
    }
}

/// Counters at both ends of a window.
#[derive(Clone, Debug, Default)]
pub struct CounterWindow {
    /// At its start; `None` when there was no window.
    pub first: Option<Counters>,
    /// At its end.
    pub last: Counters,
    /// Its length.
    pub length: Option<Duration>,
}

impl CounterWindow {
    /// How much `name` moved in the window; `None` without a window or a counter.
    #[must_use]
    pub fn delta(&self, name: &str) -> Option<u64> {
        let first = self.first.as_ref()?.get(name)?;
        Some(self.last.get(name)?.saturating_sub(*first))
    }

    /// The value of `name` since the namespace was made.
    #[must_use]
    pub fn total(&self, name: &str) -> Option<u64> {
        self.last.get(name).copied()
    }
}

/// What `sock_diag` showed of a namespace.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    /// Listening sockets.
    pub listeners: Vec<Listener>,
    /// Destinations with many local ports in use, most first.
    pub port_use: Vec<PortUse>,
    /// What established connections show.
    pub established: Established,
    /// True when there were more sockets than are counted.
    pub truncated: bool,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Local address.
    pub address: IpAddr,
    /// Local port.
    pub port: u16,
    /// Owner's user id.
    pub uid: u32,
    /// Socket inode.
    pub inode: u32,
    /// Owner's process name, where it was looked for.
    pub process: Option<String>,
    /// Connections waiting for `accept()`.
    pub queue: u32,
    /// Highest `queue` that still takes one more: what `listen()` asked for, cut to `somaxconn`.
    pub limit: u32,
    /// Handshakes under way.
    pub syn_queue: u32,
    /// What `listen()` asked for, where it was seen.
    pub asked: Option<u32>,
    /// `sk_drops`, an upper bound for dropped connections: at the start of the window.
    pub drops_first: Option<u32>,
    /// And at its end.
    pub drops: u32,
}

impl Listener {
    /// `address:port`, with brackets where they belong.
    #[must_use]
    pub fn name(&self) -> String {
        std::net::SocketAddr::new(self.address, self.port).to_string()
    }

    /// Drops in the window; the counter is 32 bits wide and wraps.
    #[must_use]
    pub fn new_drops(&self) -> u32 {
        self.drops_first
            .map_or(0, |first| self.drops.wrapping_sub(first))
    }

    /// The kernel refuses when the queue is longer than the limit (`sk_acceptq_is_full`).
    #[must_use]
    pub fn full(&self) -> bool {
        self.queue > self.limit
    }
}

/// Local ports in use towards one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// Local address.
    pub source: IpAddr,
    /// Remote address and port.
    pub destination: std::net::SocketAddr,
    /// Ports of the local range in use, `TIME_WAIT` included.
    pub ports: u32,
    /// How many of them are in `TIME_WAIT`.
    pub time_wait: u32,
}

/// What the established connections of a namespace have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Established {
    /// How many were looked at.
    pub count: u32,
    /// Without the time stamp option.
    pub without_timestamps: u32,
    /// Without window scaling.
    pub without_window_scaling: u32,
    /// That spent a tenth or more of their sending time waiting for the send buffer.
    pub send_buffer_limited: u32,
    /// That time out again and again while nothing is acknowledged.
    pub stalled: u32,
    /// Largest product of round trip and delivery rate, in bytes.
    pub largest_bdp_bytes: u64,
    /// In `TIME_WAIT`.
    pub time_wait: u32,
}

/// `/proc/net/softnet_stat`, summed over CPUs, at both ends of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Softnet {
    /// Packets dropped because a CPU's backlog was full.
    pub dropped: u64,
    /// Times a CPU's budget ran out with packets left.
    pub squeezed: u64,
    /// Drops in the window, if there was one.
    pub dropped_delta: Option<u64>,
    /// Squeezes in the window, if there was one.
    pub squeezed_delta: Option<u64>,
}

/// The TCP line of `/proc/net/sockstat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockstat {
    /// Orphans.
    pub orphans: u64,
    /// Sockets in `TIME_WAIT` in this namespace.
    pub time_wait: u64,
    /// Pages in TCP buffers, node-wide.
    pub mem_pages: u64,
}
