//! One connection, as far as its events have told of it.

use std::net::SocketAddr;

use netobs_common::{
    connection::ConnectFailure,
    event::{CONNECTED, Endpoints, Event},
    ledger::{Direction, ResetClass, RetransmitType, Role},
    owner::Owner,
};
use zerocopy::TryFromBytes as _;

use super::{
    super::{listeners::address, owner::Workloads},
    story::What,
};
use crate::sys::{cgroup::Workload, owner::Comm};

/// Moments that are kept of one connection; a story needs the first ones.
const MAX_MOMENTS: usize = 24;
/// Two events of one socket that both tell of its beginning differ by less than this: a program can
/// be interrupted between two looks at the clock.
const SAME_BEGINNING_NS: u64 = 20_000_000;

/// Which connection: its ends, the lesser first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    ends: [SocketAddr; 2],
    /// Of loopback addresses only; else 0.
    netns: u32,
    /// 0: the latest with these ends.
    retired: u32,
}

impl Key {
    /// The key, and at which end of it the event's own socket is.
    pub(super) fn of(seen: &Seen) -> (Self, usize) {
        let (local, remote) = (seen.local, seen.remote);
        let loopback = local.ip().is_loopback() || remote.ip().is_loopback();
        let side = usize::from(local > remote);
        let key = Self {
            ends: if side == 0 {
                [local, remote]
            } else {
                [remote, local]
            },
            netns: if loopback { seen.netns } else { 0 },
            retired: 0,
        };
        (key, side)
    }

    /// As the key of a connection that is over, its ends being another's now.
    pub(super) const fn retired(self, retired: u32) -> Self {
        Self { retired, ..self }
    }

    pub(super) fn is_between(&self, one: SocketAddr, other: SocketAddr) -> bool {
        let [low, high] = self.ends;
        (low, high) == (one, other) || (low, high) == (other, one)
    }

    /// The side at which the connection's end with this port is, if the other end is `remote`.
    pub(super) fn side_of_port(&self, port: u16, remote: SocketAddr) -> Option<usize> {
        let [low, high] = self.ends;
        if high == remote && low.port() == port {
            Some(0)
        } else {
            (low == remote && high.port() == port).then_some(1)
        }
    }

    pub(super) fn end(&self, side: usize) -> SocketAddr {
        let [low, high] = self.ends;
        if side == 0 { low } else { high }
    }
}

/// What an event says of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) at_ns: u64,
    pub(super) netns: u32,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// Address of the connection's own socket; 0 when the event came by another (a listener), or
    /// none.
    sk: u64,
    /// When the socket began, as this event knows; 0 when it does not.
    began_ns: u64,
    owner: Owner,
    /// What the local end is, and whether the event knows it from what happened.
    role: Option<(Role, bool)>,
    what: What,
}

impl Seen {
    /// `None`: not about a connection, or of an address family that there is not.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let header = event.header();
        let mut seen = match event {
            Event::Retransmit(it) => {
                let kind = RetransmitType::try_read_from_bytes(&[it.kind]).ok()?;
                let role = Role::try_read_from_bytes(&[it.role]).ok()?;
                let syn_ack = kind == RetransmitType::SynAck;
                let what = if it.err == 0 {
                    What::Retransmit {
                        kind,
                        segments: it.segments,
                    }
                } else {
                    What::RetransmitFailed
                };
                Self {
                    sk: if syn_ack { 0 } else { it.sk },
                    began_ns: began(header.ktime_ns, it.age_ns),
                    role: Some((role, kind == RetransmitType::Syn || syn_ack)),
                    ..Self::new(&it.ends, it.owner, what)?
                }
            }
            Event::Connect(it) => {
                let what = if it.failure == CONNECTED {
                    What::Connected {
                        latency_ns: it.latency_ns,
                        syn_retransmits: it.syn_retransmits,
                    }
                } else {
                    What::ConnectFailed {
                        failure: *ConnectFailure::ALL.get(usize::from(it.failure))?,
                        latency_ns: it.latency_ns,
                        syn_retransmits: it.syn_retransmits,
                    }
                };
                Self {
                    sk: it.sk,
                    began_ns: began(header.ktime_ns, it.latency_ns),
                    role: Some((Role::Client, true)),
                    ..Self::new(&it.ends, it.owner, what)?
                }
            }
            Event::Accept(it) => Self {
                sk: it.sk,
                began_ns: began(header.ktime_ns, it.latency_ns),
                role: Some((Role::Server, true)),
                ..Self::new(
                    &it.ends,
                    it.owner,
                    What::Accepted {
                        waited_ns: it.latency_ns,
                    },
                )?
            },
            Event::ListenDrop(it) => Self {
                role: Some((Role::Server, true)),
                ..Self::new(
                    &it.ends,
                    it.owner,
                    What::ListenDrop {
                        queue: it.ack_backlog,
                        limit: it.max_ack_backlog,
                    },
                )?
            },
            Event::Reset(it) => {
                let what = What::Reset {
                    direction: Direction::try_read_from_bytes(&[it.direction]).ok()?,
                    class: ResetClass::try_read_from_bytes(&[it.class]).ok()?,
                    state: it.state,
                    idle_ns: it.idle_ns,
                };
                let role = Role::try_read_from_bytes(&[it.role]).ok()?;
                Self {
                    sk: it.sk,
                    began_ns: began(header.ktime_ns, it.age_ns),
                    // Without a socket, the end is whatever the packet was sent to.
                    role: (it.sk != 0).then_some((role, false)),
                    ..Self::new(&it.ends, it.owner, what)?
                }
            }
            _ => return None,
        };
        seen.at_ns = header.ktime_ns;
        seen.netns = header.netns;
        Some(seen)
    }

    /// Whether the event came from the connection's own socket, so that its local address is one of
    /// its network namespace's.
    pub(super) fn has_socket(&self) -> bool {
        self.sk != 0
    }

    fn new(ends: &Endpoints, owner: Owner, what: What) -> Option<Self> {
        let family = i32::from(ends.family);
        if !matches!(family, libc::AF_INET | libc::AF_INET6) || ends.remote_port == 0 {
            return None;
        }
        let end = |bytes, port| SocketAddr::new(address(ends.family, bytes).to_canonical(), port);
        Some(Self {
            at_ns: 0,
            netns: 0,
            local: end(ends.local_address, ends.local_port),
            remote: end(ends.remote_address, ends.remote_port),
            sk: 0,
            began_ns: 0,
            owner,
            role: None,
            what,
        })
    }
}

fn began(at_ns: u64, age_ns: u64) -> u64 {
    if age_ns == 0 {
        0
    } else {
        at_ns.saturating_sub(age_ns)
    }
}

/// What is known of one end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SideRecord {
    pub(super) seen: bool,
    pub(super) netns: u32,
    pub(super) pid: u32,
    pub(super) process: Comm,
    pub(super) workload: Workload,
    /// When `connect()` was called, or the incoming handshake ended; 0 when not known.
    pub(super) began_ns: u64,
    sk: u64,
    over: bool,
}

/// Something that happened, and at which end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happened {
    pub(super) at_ns: u64,
    pub(super) until_ns: u64,
    pub(super) times: u32,
    pub(super) side: usize,
    pub(super) what: What,
}

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Record {
    sides: [SideRecord; 2],
    /// Which side is the client, and whether that is known from what happened.
    client: Option<(usize, bool)>,
    pub(super) happened: Vec<Happened>,
    pub(super) left_out: u32,
    touched_ns: u64,
}

impl Record {
    /// Whether an event of one end's socket can be about this connection, not about a later one with
    /// the same ends.
    pub(super) fn fits(&self, side: usize, seen: &Seen) -> bool {
        let known = self.side(side);
        if known.seen && known.netns != seen.netns {
            return false; // other networks with the same addresses
        }
        if seen.sk == 0 {
            return true;
        }
        if known.sk != 0 && known.sk != seen.sk {
            return false;
        }
        let later = seen.began_ns > known.began_ns.saturating_add(SAME_BEGINNING_NS);
        let begins_anew = known.began_ns != 0 && seen.began_ns != 0 && later;
        // What ended the other end before this one began is another connection's end.
        let other = self.side(1 - side.min(1));
        let after_other = other.over && seen.began_ns > self.touched_ns;
        !(begins_anew || after_other || known.over && seen.began_ns > self.touched_ns)
    }

    pub(super) fn add(&mut self, side: usize, seen: &Seen, workloads: &mut dyn Workloads) {
        self.touched_ns = self.touched_ns.max(seen.at_ns);
        let known = if side == 0 {
            let [low, _] = &mut self.sides;
            low
        } else {
            let [_, high] = &mut self.sides;
            high
        };
        known.seen = true;
        known.netns = seen.netns;
        if seen.sk != 0 {
            known.sk = seen.sk;
            if known.began_ns == 0 {
                known.began_ns = seen.began_ns;
            }
        }
        let accepted = matches!(seen.what, What::Accepted { .. });
        if seen.owner.pid != 0 && (known.pid == 0 || accepted) {
            known.pid = seen.owner.pid;
            known.process = Comm::from_bytes(&seen.owner.comm);
        }
        if known.workload.is_empty() && seen.owner.cgroup != 0 {
            known.workload = workloads.of(seen.owner.cgroup);
        }
        known.over |= matches!(seen.what, What::Reset { .. } | What::ConnectFailed { .. });
        if let Some((role, sure)) = seen.role
            && self.client.is_none_or(|(_, known)| sure && !known)
        {
            let client = if role == Role::Client {
                side
            } else {
                1 - side.min(1)
            };
            self.client = Some((client, sure));
        }
        self.happen(side, seen);
    }

    fn happen(&mut self, side: usize, seen: &Seen) {
        if let Some(last) = self.happened.iter_mut().rev().find(|it| it.side == side)
            && merge(&mut last.what, &seen.what)
        {
            last.until_ns = last.until_ns.max(seen.at_ns);
            last.times = last.times.saturating_add(1);
            return;
        }
        if self.happened.len() >= MAX_MOMENTS {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        self.happened.push(Happened {
            at_ns: seen.at_ns,
            until_ns: seen.at_ns,
            times: 1,
            side,
            what: seen.what,
        });
    }

    pub(super) fn side(&self, side: usize) -> &SideRecord {
        let [low, high] = &self.sides;
        if side == 0 { low } else { high }
    }

    pub(super) fn client(&self) -> Option<(usize, bool)> {
        self.client
    }

    pub(super) fn touched_ns(&self) -> u64 {
        self.touched_ns
    }
}

/// Adds what happened once more to what happened before, if it is the same. SYNs are kept apart:
/// each has its own reason for staying unanswered.
fn merge(last: &mut What, next: &What) -> bool {
    match (last, next) {
        (
            What::Retransmit { kind, segments },
            What::Retransmit {
                kind: again,
                segments: more,
            },
        ) if kind == again && *kind != RetransmitType::Syn => {
            *segments = segments.saturating_add(*more);
            true
        }
        (What::RetransmitFailed, What::RetransmitFailed) => true,
        (
            What::ListenDrop { queue, limit },
            What::ListenDrop {
                queue: now,
                limit: current,
            },
        ) => {
            (*queue, *limit) = (*now, *current);
            true
        }
        _ => false,
    }
}
