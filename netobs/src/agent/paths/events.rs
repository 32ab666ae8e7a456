//! The kernel's events of the probes' own sockets, kept for as long as a measurement lasts.
//!
//! A probe names its port before it sends anything, so the event path keeps what belongs to a probe
//! and looks no further at the rest: while nothing is measured it does not even take the lock.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use netobs_common::{
    event::{Endpoints, Event},
    ledger::RetransmitType,
};

use crate::path::{Ends, KernelFact, KernelStory, Transport, Window};

/// Sockets that are watched at most; the oldest make room. A measurement opens a handful.
const MAX_SOCKETS: usize = 4096;
/// Events that are kept of one socket; a story needs the first ones.
const MAX_EVENTS: usize = 32;

/// Events by socket.
#[derive(Debug)]
pub struct ProbeSockets {
    netns: u32,
    /// How many are watched: read without the lock.
    watched: AtomicUsize,
    inner: Mutex<Inner>,
}

/// Our port, and their end. The local address is not known before the route is.
type Key = (u16, SocketAddr);

#[derive(Debug, Default)]
struct Inner {
    sockets: HashMap<Key, Vec<(u64, &'static str, String)>>,
    /// In the order in which they came.
    order: VecDeque<Key>,
}

impl ProbeSockets {
    /// For probes that run in the namespace with this inode number.
    #[must_use]
    pub fn new(netns: u32) -> Self {
        Self {
            netns,
            watched: AtomicUsize::new(0),
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the event if it is about a socket of a probe.
    pub(in crate::agent) fn record(&self, event: &Event) {
        if self.watched.load(Ordering::Relaxed) == 0 || event.header().netns != self.netns {
            return;
        }
        let Some((ends, name, text)) = tell(event) else {
            return;
        };
        let Some(remote) = remote(ends) else { return };
        let mut inner = self.lock();
        if let Some(events) = inner.sockets.get_mut(&(ends.local_port, remote))
            && events.len() < MAX_EVENTS
        {
            events.push((event.header().ktime_ns, name, text()));
        }
    }
}

impl KernelStory for ProbeSockets {
    fn watch(&self, ends: Ends) {
        if ends.transport != Transport::Tcp {
            return; // No event tells of a UDP socket.
        }
        let key = (ends.local.port(), ends.remote);
        let mut inner = self.lock();
        if inner.order.len() >= MAX_SOCKETS
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.sockets.remove(&oldest);
        }
        if inner.sockets.insert(key, Vec::new()).is_none() {
            inner.order.push_back(key);
        }
        self.watched.store(inner.sockets.len(), Ordering::Relaxed);
    }

    fn of(&self, ends: &[Ends], window: Window) -> Vec<KernelFact> {
        let mut facts = Vec::new();
        let mut inner = self.lock();
        for ends in ends {
            let key = (ends.local.port(), ends.remote);
            let Some(events) = inner.sockets.remove(&key) else {
                continue;
            };
            let within = events.into_iter().filter_map(|(at_ns, event, text)| {
                let after = at_ns.checked_sub(window.from_ns)?;
                (at_ns <= window.to_ns).then(|| KernelFact {
                    at: Duration::from_nanos(after),
                    ends: *ends,
                    event,
                    text,
                })
            });
            facts.extend(within);
        }
        let Inner { sockets, order } = &mut *inner;
        order.retain(|key| sockets.contains_key(key));
        self.watched.store(sockets.len(), Ordering::Relaxed);
        facts.sort_by_key(|fact| fact.at);
        facts
    }
}

/// The connection that an event is about, its kind, and what it says.
fn tell(event: &Event) -> Option<(&Endpoints, &'static str, impl FnOnce() -> String)> {
    match event {
        Event::Retransmit(it) => {
            let (kind, timeouts, segments, err) = (it.kind, it.timeouts, it.segments, it.err);
            let text = move || retransmit(kind, timeouts, segments, err);
            Some((&it.ends, "retransmit", text))
        }
        _ => None,
    }
}

fn retransmit(kind: u8, timeouts: u8, segments: u32, err: i32) -> String {
    let what = match RetransmitType::ALL.get(usize::from(kind)) {
        Some(RetransmitType::Syn) => "the SYN".to_owned(),
        _ if segments == 1 => "a segment".to_owned(),
        _ => format!("{segments} segments"),
    };
    let why = match RetransmitType::ALL.get(usize::from(kind)) {
        Some(RetransmitType::Fast) => ": the peer reported a gap",
        Some(RetransmitType::TailLossProbe) => ": the last one was not answered",
        Some(RetransmitType::Timeout | RetransmitType::Syn) => ": no answer in time",
        _ => "",
    };
    let again = match timeouts {
        0 | 1 => String::new(),
        number => format!(", for the {number}th time"),
    };
    if err == 0 {
        format!("{what} was sent again{why}{again}")
    } else {
        format!("{what} could not be sent again (error {err}){again}")
    }
}

fn remote(ends: &Endpoints) -> Option<SocketAddr> {
    let bytes = ends.remote_address;
    let address: IpAddr = match i32::from(ends.family) {
        libc::AF_INET => {
            let [a, b, c, d, ..] = bytes;
            Ipv4Addr::new(a, b, c, d).into()
        }
        libc::AF_INET6 => Ipv6Addr::from(bytes).into(),
        _ => return None,
    };
    Some(SocketAddr::new(address, ends.remote_port))
}
