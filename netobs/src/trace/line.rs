//! One event as it is shown.

use std::{
    borrow::Cow,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use jiff::{Timestamp, tz::TimeZone};
use netobs_common::{
    event::{Event, EventKind},
    ledger::Role,
};
use serde::{Deserialize, Serialize};

use super::{
    detail::Detail,
    filter::Subject,
    kind::{self, Common, SCHEMA_VERSION},
    owners::Listeners,
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
    /// Its name.
    pub process: String,
    /// The container it runs in; null for none, or when not known.
    pub container_id: Option<String>,
}

/// What a socket is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// Tells sockets apart within one output; says nothing about where they are in memory.
    pub id: Option<String>,
    /// As `ss` names it, such as `established`; null when the event does not tell.
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
    pub fn subject(&self) -> Subject<'_> {
        let owner = self.owner.as_ref();
        Subject {
            kind: kind::by_name(&self.event),
            netns: self.netns,
            ports: [&self.local, &self.peer].map(|end| end.map(|end| end.port)),
            pid: owner.and_then(|owner| owner.pid),
            container: owner.and_then(|owner| owner.container_id.as_deref()),
        }
    }
}

/// `skc_state` (include/net/tcp_states.h) as `ss` names it.
const STATES: [&str; 13] = [
    "unknown",
    "established",
    "syn-sent",
    "syn-recv",
    "fin-wait-1",
    "fin-wait-2",
    "time-wait",
    "close",
    "close-wait",
    "last-ack",
    "listen",
    "closing",
    "new-syn-recv",
];

/// Makes lines of events.
#[derive(Debug)]
pub struct Lines {
    listeners: Listeners,
    zone: TimeZone,
    ids: RandomState,
}

impl Lines {
    /// With times in this zone.
    #[must_use]
    pub fn new(zone: TimeZone) -> Self {
        Self {
            listeners: Listeners::default(),
            zone,
            ids: RandomState::new(),
        }
    }

    /// Learns from an event what later lines show: who listens.
    pub fn learn(&mut self, event: &Event) {
        if let Event::Listener(change) = event {
            self.listeners.note(change);
        }
    }

    /// What filters look at, without the line being made.
    #[must_use]
    pub fn subject(&self, event: &Event) -> Subject<'_> {
        let common = kind::common(event);
        let netns = event.header().netns;
        let (local, peer) = ends(&common);
        let owner = self
            .listener(netns, &common, local.as_ref())
            .and_then(|listener| listener.owner.as_ref());
        Subject {
            kind: EventKind::from_u32(event.header().kind),
            netns: (netns != 0).then_some(netns),
            ports: [local, peer].map(|end| end.map(|end| end.port)),
            pid: match common.process {
                Some((pid, _)) => Some(pid),
                None => owner.and_then(|owner| owner.pid),
            },
            container: owner.and_then(|owner| owner.container_id.as_deref()),
        }
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

    /// The line of an event that happened at this wall-clock time.
    #[must_use]
    pub fn line(&self, event: &Event, wall_ns: Option<u64>) -> Line {
        let common = kind::common(event);
        let header = event.header();
        let (local, peer) = ends(&common);
        let listener = self.listener(header.netns, &common, local.as_ref());
        let owner = match common.process {
            Some((pid, name)) => Some(Owner {
                pid: Some(pid),
                process: name.to_string(),
                container_id: None,
            }),
            None => listener.and_then(|listener| listener.owner.clone()),
        };
        let state = common
            .state
            .and_then(|state| STATES.get(usize::from(state)));
        let role = common.role.map(|role| match role {
            Role::Server => "server",
            Role::Client => "client",
        });
        let name = EventKind::from_u32(header.kind).map_or("unknown", EventKind::name);
        let detail = kind::detail(event).into_iter();
        Line {
            schema_version: SCHEMA_VERSION,
            time: self.time(wall_ns),
            ktime_ns: header.ktime_ns,
            event: name.into(),
            method: if common.polled { "poll" } else { "event" }.into(),
            netns: (header.netns != 0).then_some(header.netns),
            socket: Socket {
                id: (common.sk != 0).then(|| format!("{:016x}", self.ids.hash_one(common.sk))),
                state: state.map(|state| (*state).into()),
                role: role.map(Into::into),
            },
            local,
            peer,
            owner,
            listener: listener.map(|listener| listener.at),
            detail: detail
                .map(|(name, value)| (name.into(), value))
                .collect(),
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
