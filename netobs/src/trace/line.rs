//! One event as it is shown.

use std::{
    borrow::Cow,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use jiff::{Timestamp, tz::TimeZone};
use netobs_common::{
    event::{Event, EventKind},
    kernel::state_name,
    ledger::Role,
    owner::Owner as KernelOwner,
};
use serde::{Deserialize, Serialize};

use super::{
    detail::Detail,
    filter::Subject,
    kind::{self, Common, SCHEMA_VERSION},
    owners::Listeners,
};
use crate::{
    recorder::Recorded,
    sys::{cgroup::Workload, owner::Comm},
};

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct End {
    /// IPv4, or IPv6; an IPv4 address in an IPv6 one is shown as IPv4.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}", self.port),
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// Reads an address as events hold it.
pub(super) fn address(family: u16, bytes: &[u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = *bytes;
    if i32::from(family) == libc::AF_INET6 {
        Ipv6Addr::from(*bytes).to_canonical()
    } else {
        Ipv4Addr::new(a, b, c, d).into()
    }
}

/// Who a socket belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process; null when only its name is known.
    pub pid: Option<u32>,
    /// Its name; empty when not known.
    pub process: String,
    /// The container it runs in, 12 digits of its id; null for none, or when not known.
    pub container_id: Option<String>,
    /// The pod it runs in; null for none, or when not known.
    pub pod_uid: Option<String>,
}

/// What a socket is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// Tells sockets apart within one output; says nothing about where they are in memory.
    pub id: Option<String>,
    /// As `ss` names it, such as `ESTABLISHED`; null when the event does not tell.
    pub state: Option<Cow<'static, str>>,
    /// `server` when its local port is listened on, else `client`; null when not known.
    pub role: Option<Cow<'static, str>>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Wall-clock time with its zone, RFC 3339, microseconds.
    pub time: String,
    /// The kernel's monotonic clock, ns.
    pub ktime_ns: u64,
    /// Name of the kind.
    pub event: Cow<'static, str>,
    /// `event` when it was seen happening, `poll` when it was found by looking.
    pub method: Cow<'static, str>,
    /// Inode number of the network namespace; null when the method cannot tell.
    pub netns: Option<u32>,
    /// The socket.
    pub socket: Socket,
    /// The local end.
    pub local: Option<End>,
    /// The remote end; null when it is not known.
    pub peer: Option<End>,
    /// Who the socket belongs to; null when not known.
    pub owner: Option<Owner>,
    /// Where the socket's listener listens; null for none.
    pub listener: Option<End>,
    /// What only this kind of event tells.
    pub detail: Detail,
}

impl Line {
    /// What filters look at.
    #[must_use]
    pub fn subject(&self) -> Subject {
        let owner = self.owner.as_ref();
        Subject {
            kind: kind::by_name(&self.event),
            netns: self.netns,
            ports: [&self.local, &self.peer].map(|end| end.map(|end| end.port)),
            pid: owner.and_then(|owner| owner.pid),
            container: owner.and_then(|owner| owner.container_id.clone()),
        }
    }
}

/// Makes lines of events.
pub struct Lines {
    listeners: Listeners,
    zone: TimeZone,
    ids: RandomState,
    workloads: Workloads,
}

/// Tells container and pod of a cgroup, and of a process known to be in it (0: none).
pub type Workloads = Box<dyn FnMut(u64, u32) -> Workload + Send>;

impl Lines {
    /// With times in this zone.
    #[must_use]
    pub fn new(zone: TimeZone, workloads: Workloads) -> Self {
        Self {
            listeners: Listeners::default(),
            zone,
            ids: RandomState::new(),
            workloads,
        }
    }

    /// With times in this zone, and without container and pod.
    #[must_use]
    pub fn without_workloads(zone: TimeZone) -> Self {
        Self::new(zone, Box::new(|_, _| Workload::default()))
    }

    /// Learns from an event what later lines show: who listens.
    pub fn learn(&mut self, event: &Event) {
        if let Event::Listener(change) = event {
            self.listeners.note(change);
        }
    }

    /// What filters look at, without the line being made.
    #[must_use]
    pub fn subject(&mut self, event: &Event) -> Subject {
        let common = kind::common(event);
        let netns = event.header().netns;
        let (local, peer) = ends(&common);
        let owner = self.owner(netns, &common, local.as_ref());
        Subject {
            kind: EventKind::from_u32(event.header().kind),
            netns: (netns != 0).then_some(netns),
            ports: [local, peer].map(|end| end.map(|end| end.port)),
            pid: (owner.pid != 0).then_some(owner.pid),
            container: (self.workloads)(owner.cgroup, owner.pid)
                .container()
                .map(|id| id.to_string()),
        }
    }

    /// Whose the socket is: by the event, else by its listener.
    fn owner(&self, netns: u32, common: &Common, local: Option<&End>) -> KernelOwner {
        let KernelOwner { pid, comm, .. } = common.owner;
        if pid != 0 || comm != [0; 16] {
            return common.owner;
        }
        let listener = self.listener(netns, common, local);
        listener.map_or(common.owner, |listener| listener.owner)
    }

    fn listener(
        &self,
        netns: u32,
        common: &Common,
        local: Option<&End>,
    ) -> Option<&super::owners::Listener> {
        if common.role != Some(Role::Server) {
            return None;
        }
        let by_socket = self.listeners.of_socket(common.sk);
        by_socket
            .or_else(|| self.listeners.of_end(netns, local?))
            .map(AsRef::as_ref)
    }

    /// The line of an event as it was recorded.
    #[must_use]
    pub fn recorded(&mut self, recorded: &Recorded) -> Line {
        let known = (!recorded.workload.is_empty()).then_some(recorded.workload);
        self.make(&recorded.event, Some(recorded.wall_ns), known)
    }

    /// The line of an event that happened at this wall-clock time.
    #[must_use]
    pub fn line(&mut self, event: &Event, wall_ns: Option<u64>) -> Line {
        self.make(event, wall_ns, None)
    }

    fn make(&mut self, event: &Event, wall_ns: Option<u64>, workload: Option<Workload>) -> Line {
        let common = kind::common(event);
        let header = event.header();
        let (local, peer) = ends(&common);
        let owner = self.owner(header.netns, &common, local.as_ref());
        let workload = workload.unwrap_or_else(|| (self.workloads)(owner.cgroup, owner.pid));
        let name = Comm::from_bytes(&owner.comm);
        let known = owner.pid != 0 || !name.is_empty() || !workload.is_empty();
        let listener = self.listener(header.netns, &common, local.as_ref());
        let state = common.state.map(state_name).filter(|name| !name.is_empty());
        let kind = EventKind::from_u32(header.kind).map_or("unknown", EventKind::name);
        let detail = kind::detail(event).into_iter();
        Line {
            schema_version: SCHEMA_VERSION,
            time: self.time(wall_ns),
            ktime_ns: header.ktime_ns,
            event: kind.into(),
            method: if common.polled { "poll" } else { "event" }.into(),
            netns: (header.netns != 0).then_some(header.netns),
            socket: Socket {
                id: (common.sk != 0).then(|| format!("{:016x}", self.ids.hash_one(common.sk))),
                state: state.map(Into::into),
                role: common.role.map(|role| role.name().into()),
            },
            local,
            peer,
            owner: known.then(|| Owner {
                pid: (owner.pid != 0).then_some(owner.pid),
                process: name.to_string(),
                container_id: workload.container().map(|id| id.to_string()),
                pod_uid: workload.pod().map(|uid| uid.to_string()),
            }),
            listener: listener.map(|listener| listener.at),
            detail: detail.map(|(name, value)| (name.into(), value)).collect(),
        }
    }

    fn time(&self, wall_ns: Option<u64>) -> String {
        let time = wall_ns
            .and_then(|wall_ns| Timestamp::from_nanosecond(wall_ns.into()).ok())
            .unwrap_or_default();
        let offset = self.zone.to_offset(time);
        format!("{:.6}", time.display_with_offset(offset))
    }
}

/// The local and the remote end of an event; without a peer, the remote port is 0.
fn ends(common: &Common) -> (Option<End>, Option<End>) {
    let Some(ends) = &common.ends else {
        return (None, None);
    };
    let end = |bytes, port| End {
        address: address(ends.family, bytes),
        port,
    };
    let peer = (ends.remote_port != 0).then(|| end(&ends.remote_address, ends.remote_port));
    (Some(end(&ends.local_address, ends.local_port)), peer)
}
