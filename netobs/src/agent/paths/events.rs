//! The kernel's events of the probes' own sockets, kept for as long as a measurement lasts.
//!
//! A probe names its port before it sends anything, so the event path keeps what belongs to a probe
//! and looks no further at the rest: while nothing is measured it does not even take the lock. When
//! a measurement is over, the agent's next look is asked for the stories of its connections, which
//! know the other end as well where that is on this host.

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
    connection::ConnectFailure,
    event::{Connect, DNS_ANSWERED, DNS_LATE, Dns, Endpoints, Event, EventKind, Reset, Retransmit},
    kernel::state_name,
    ledger::{Direction, RetransmitType},
};
use zerocopy::TryFromBytes as _;

use crate::{
    ledger::stories::{Stories, Story},
    path::{Ends, KernelFact, KernelStory, STORY, Transport, Window, duration_text},
};

/// Sockets that are watched at most; the oldest make room. A measurement opens a handful.
const MAX_SOCKETS: usize = 4096;
/// Events that are kept of one socket; a story needs the first ones.
const MAX_EVENTS: usize = 32;
/// Stories are told from this weight on: below it, nothing but a handshake has happened.
const WORTH_TELLING: u32 = 10;

/// Events by socket.
#[derive(Debug)]
pub struct ProbeSockets {
    netns: u32,
    /// How many are watched: read without the lock.
    watched: AtomicUsize,
    inner: Mutex<Inner>,
}

/// Our port, and their end. The local address is not known before the route is.
type Key = (Transport, u16, SocketAddr);

fn key(ends: &Ends) -> Key {
    (ends.transport, ends.local.port(), ends.remote)
}

/// What is known of one socket.
#[derive(Debug, Default)]
struct Watched {
    events: Vec<(u64, &'static str, String)>,
    /// From both ends, and when it came to its end.
    story: Option<(u64, String)>,
}

#[derive(Debug, Default)]
struct Inner {
    sockets: HashMap<Key, Watched>,
    /// In the order in which they came.
    order: VecDeque<Key>,
    /// Whose stories the next look is to tell.
    asked: Vec<Key>,
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
        let Some((transport, ends)) = ends(event) else {
            return;
        };
        let Some(remote) = remote(ends) else { return };
        let mut inner = self.lock();
        if let Some(watched) = inner.sockets.get_mut(&(transport, ends.local_port, remote))
            && watched.events.len() < MAX_EVENTS
            && let Some((name, text)) = words(event)
        {
            watched.events.push((event.header().ktime_ns, name, text));
        }
    }

    /// Tells the stories that were asked for. Called at each look; costs nothing when none were.
    pub(in crate::agent) fn tell(&self, stories: &Stories) {
        if self.watched.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut inner = self.lock();
        for key in std::mem::take(&mut inner.asked) {
            let (_, port, remote) = key;
            let story = stories
                .of_port(self.netns, port, remote)
                .filter(|story| story.weight() >= WORTH_TELLING);
            if let Some(watched) = inner.sockets.get_mut(&key) {
                watched.story = story.map(|Story { until_ns, text, .. }| (until_ns, text));
            }
        }
    }

    /// Asks for the stories of these connections; the agent's next look tells them.
    pub(super) fn ask(&self, ends: &[Ends]) {
        let mut inner = self.lock();
        let tcp = ends.iter().filter(|ends| ends.transport == Transport::Tcp);
        let asked: Vec<Key> = tcp
            .map(key)
            .filter(|key| inner.sockets.contains_key(key))
            .collect();
        inner.asked.extend(asked);
    }
}

impl KernelStory for ProbeSockets {
    fn watch(&self, ends: Ends) {
        let key = key(&ends);
        let mut inner = self.lock();
        if inner.order.len() >= MAX_SOCKETS
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.sockets.remove(&oldest);
        }
        if inner.sockets.insert(key, Watched::default()).is_none() {
            inner.order.push_back(key);
        }
        self.watched.store(inner.sockets.len(), Ordering::Relaxed);
    }

    fn of(&self, ends: &[Ends], window: Window) -> Vec<KernelFact> {
        let (mut facts, mut stories) = (Vec::new(), Vec::new());
        let mut inner = self.lock();
        for ends in ends {
            let Some(watched) = inner.sockets.remove(&key(ends)) else {
                continue;
            };
            let within = |(at_ns, event, text): (u64, &'static str, String)| {
                let after = at_ns.checked_sub(window.from_ns)?;
                (at_ns <= window.to_ns).then(|| KernelFact {
                    at: Duration::from_nanos(after),
                    ends: *ends,
                    event,
                    text,
                })
            };
            let told = watched.story.map(|(at_ns, text)| (at_ns, STORY, text));
            stories.extend(told.and_then(within));
            facts.extend(watched.events.into_iter().filter_map(within));
        }
        let Inner {
            sockets,
            order,
            asked,
        } = &mut *inner;
        order.retain(|key| sockets.contains_key(key));
        asked.retain(|key| sockets.contains_key(key));
        self.watched.store(sockets.len(), Ordering::Relaxed);
        facts.sort_by_key(|fact| fact.at);
        facts.extend(stories);
        facts
    }
}

/// The connection that an event is about, where it can be one of a probe's.
fn ends(event: &Event) -> Option<(Transport, &Endpoints)> {
    match event {
        Event::Retransmit(it) => Some((Transport::Tcp, &it.ends)),
        Event::Connect(it) => Some((Transport::Tcp, &it.ends)),
        Event::Reset(it) => Some((Transport::Tcp, &it.ends)),
        Event::Dns(it) => Some((Transport::Udp, &it.lookup.ends)),
        _ => None,
    }
}

/// The kind of an event, and what it says.
fn words(event: &Event) -> Option<(&'static str, String)> {
    let name = EventKind::from_u32(event.header().kind)?.name();
    let text = match event {
        Event::Retransmit(it) => retransmit(it),
        Event::Connect(it) => connect(it),
        Event::Reset(it) => reset(it),
        Event::Dns(it) => dns(it),
        _ => return None,
    };
    Some((name, text))
}

fn retransmit(event: &Retransmit) -> String {
    let kind = RetransmitType::try_read_from_bytes(&[event.kind]).ok();
    let what = match (kind, event.segments) {
        (Some(RetransmitType::Syn), _) => "the SYN".to_owned(),
        (_, 0 | 1) => "a segment".to_owned(),
        (_, segments) => format!("{segments} segments"),
    };
    if event.err != 0 {
        return format!("{what} could not be sent again (error {})", event.err);
    }
    let why = match kind {
        Some(RetransmitType::Fast) => ": the peer reported a gap",
        Some(RetransmitType::TailLossProbe) => ": the last one was not answered",
        Some(RetransmitType::Timeout | RetransmitType::Syn) => ": no answer in time",
        _ => "",
    };
    format!("{what} was sent again{why}")
}

fn connect(event: &Connect) -> String {
    let took = duration_text(Duration::from_nanos(event.latency_ns));
    let again = match event.syn_retransmits {
        0 => String::new(),
        1 => ", with the SYN sent again once".to_owned(),
        times => format!(", with the SYN sent again {times} times"),
    };
    let failure = ConnectFailure::ALL.get(usize::from(event.failure));
    match failure {
        Some(failure) => format!("the handshake failed in {took}: {}{again}", failure.name()),
        None => format!("the handshake took {took}{again}"),
    }
}

fn reset(event: &Reset) -> String {
    let direction = match Direction::try_read_from_bytes(&[event.direction]) {
        Ok(Direction::Sent) => "sent",
        _ => "received",
    };
    let state = match state_name(event.state) {
        "" => String::new(),
        state => format!(" in state {state}"),
    };
    format!("a reset was {direction}{state}")
}

fn dns(event: &Dns) -> String {
    let took = duration_text(Duration::from_nanos(event.latency_ns));
    let what = match event.outcome {
        DNS_ANSWERED => format!("the name server answered in {took}"),
        DNS_LATE => format!("the name server's answer came too late, in {took}"),
        _ => format!("the name server did not answer in {took}"),
    };
    match event.lookup.sends {
        0 | 1 => what,
        times => format!("{what}, asked {times} times"),
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

#[cfg(test)]
mod tests {
    use netobs_common::event::EventHeader;
    use zerocopy::FromBytes as _;

    use super::*;

    const NETNS: u32 = 7;

    fn retransmitted(netns: u32, local_port: u16, ktime_ns: u64) -> Event {
        let mut remote_address = [0; 16];
        remote_address[..4].copy_from_slice(&[10, 0, 0, 1]);
        let mut event = Retransmit::read_from_bytes(&[0; size_of::<Retransmit>()]).unwrap();
        event.header = EventHeader {
            ktime_ns,
            kind: EventKind::Retransmit as u32,
            netns,
        };
        event.ends = Endpoints {
            remote_address,
            local_port,
            remote_port: 80,
            family: libc::AF_INET.try_into().unwrap(),
            ..Endpoints::default()
        };
        event.kind = RetransmitType::Syn as u8;
        event.segments = 1;
        Event::Retransmit(event)
    }

    fn ends(port: u16) -> Ends {
        Ends {
            local: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
            remote: "10.0.0.1:80".parse().unwrap(),
            transport: Transport::Tcp,
        }
    }

    const WINDOW: Window = Window {
        from_ns: 1_000,
        to_ns: 9_000,
    };

    #[test]
    fn only_what_a_probe_watches_is_kept_and_only_once() {
        let sockets = ProbeSockets::new(NETNS);
        sockets.record(&retransmitted(NETNS, 5, 2_000)); // Not watched yet.
        sockets.watch(ends(5));
        sockets.record(&retransmitted(NETNS, 5, 3_000));
        sockets.record(&retransmitted(NETNS, 5, 2_500));
        sockets.record(&retransmitted(NETNS, 5, 500)); // Before the measurement.
        sockets.record(&retransmitted(NETNS, 6, 3_000)); // Another's socket.
        sockets.record(&retransmitted(NETNS + 1, 5, 3_000)); // Another's namespace.
        let facts = sockets.of(&[ends(5), ends(6)], WINDOW);
        let times: Vec<u128> = facts.iter().map(|fact| fact.at.as_nanos()).collect();
        assert_eq!(times, [1_500, 2_000]);
        assert_eq!(facts[0].event, "retransmit");
        assert_eq!(facts[0].text, "the SYN was sent again: no answer in time");
        assert!(sockets.of(&[ends(5)], WINDOW).is_empty());
        assert_eq!(sockets.watched.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn lookups_are_kept_by_their_own_socket() {
        let sockets = ProbeSockets::new(NETNS);
        let udp = Ends {
            transport: Transport::Udp,
            remote: "10.0.0.1:53".parse().unwrap(),
            ..ends(5)
        };
        sockets.watch(udp);
        let mut event = Dns::read_from_bytes(&[0; size_of::<Dns>()]).unwrap();
        event.header = EventHeader {
            ktime_ns: 2_000,
            kind: EventKind::Dns as u32,
            netns: NETNS,
        };
        event.lookup.ends.local_port = 5;
        event.lookup.ends.remote_port = 53;
        event.lookup.ends.family = libc::AF_INET.try_into().unwrap();
        event.lookup.ends.remote_address[..4].copy_from_slice(&[10, 0, 0, 1]);
        event.latency_ns = 5_000_000_000;
        event.lookup.sends = 2;
        event.outcome = netobs_common::event::DNS_UNANSWERED;
        sockets.record(&Event::Dns(event));
        event.outcome = DNS_ANSWERED;
        event.lookup.sends = 1;
        sockets.record(&Event::Dns(event));
        let facts = sockets.of(&[udp], WINDOW);
        let texts: Vec<&str> = facts.iter().map(|fact| fact.text.as_str()).collect();
        let unanswered = "the name server did not answer in 5.00 s, asked 2 times";
        assert_eq!(texts, [unanswered, "the name server answered in 5.00 s"]);
        assert_eq!(facts[0].event, "dns");
    }

    #[test]
    fn a_story_is_told_to_who_asked_for_it() {
        let sockets = ProbeSockets::new(NETNS);
        let mut stories = Stories::default();
        stories.take(&retransmitted(NETNS, 5, 3_000), &mut ());
        stories.take(&retransmitted(NETNS + 1, 6, 3_000), &mut ());
        for port in [5, 6, 7] {
            sockets.watch(ends(port));
        }
        sockets.tell(&stories);
        assert!(sockets.of(&[ends(5)], WINDOW).is_empty()); // Not asked for.
        sockets.watch(ends(5));
        sockets.ask(&[ends(5), ends(6), ends(7), ends(8)]);
        sockets.tell(&stories);
        let facts = sockets.of(&[ends(5), ends(6), ends(7), ends(8)], WINDOW);
        let [fact] = facts.as_slice() else {
            panic!("{facts:?}");
        };
        assert_eq!((fact.event, fact.ends), (STORY, ends(5)));
        assert!(fact.text.contains("SYN retransmitted"), "{}", fact.text);
        assert!(sockets.lock().asked.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let sockets = ProbeSockets::new(NETNS);
        for port in 1..=u16::try_from(MAX_SOCKETS).unwrap() + 10 {
            sockets.watch(ends(port));
        }
        assert_eq!(sockets.watched.load(Ordering::Relaxed), MAX_SOCKETS);
        for _ in 0..100 {
            sockets.record(&retransmitted(NETNS, 4000, 3_000));
        }
        assert_eq!(sockets.of(&[ends(4000)], WINDOW).len(), MAX_EVENTS);
        assert!(sockets.of(&[ends(1)], WINDOW).is_empty());
    }
}
