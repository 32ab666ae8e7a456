//! Who listens, learnt from events.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use netobs_common::{
    event::{LISTENER_CLOSED, ListenerChange},
    owner::Owner,
};

use super::line::{End, address};

/// Listeners that are remembered, closed ones included, as a bound.
const MOST: usize = 65_536;

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    /// Where it listens.
    pub(super) at: End,
    /// Who; zeros when not known.
    pub(super) owner: Owner,
    open: bool,
}

/// The listeners that events told of.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_socket: HashMap<u64, Arc<Listener>>,
    /// By namespace and port, the latest last.
    by_port: HashMap<(u32, u16), Vec<Bound>>,
}

/// A socket and what it is.
type Bound = (u64, Arc<Listener>);

impl Listeners {
    /// Takes note of an event.
    pub(super) fn note(&mut self, change: &ListenerChange) {
        let key = (change.header.netns, change.local_port);
        if change.change == LISTENER_CLOSED {
            // It is remembered: events of its last moments may come later.
            if let Some(known) = self.by_socket.get(&change.sk) {
                let closed = Arc::new(Listener {
                    open: false,
                    ..known.as_ref().clone()
                });
                self.put(change.sk, key, closed);
            }
            return;
        }
        if self.by_socket.len() >= MOST {
            self.forget_closed();
        }
        let listener = Arc::new(Listener {
            at: End {
                address: address(change.family, &change.local_address),
                port: change.local_port,
            },
            owner: change.owner,
            open: true,
        });
        self.put(change.sk, key, listener);
    }

    fn put(&mut self, sk: u64, key: (u32, u16), listener: Arc<Listener>) {
        let there = self.by_port.entry(key).or_default();
        there.retain(|(socket, other)| *socket != sk && other.open);
        there.push((sk, Arc::clone(&listener)));
        self.by_socket.insert(sk, listener);
    }

    fn forget_closed(&mut self) {
        self.by_socket.retain(|_, listener| listener.open);
        self.by_port.retain(|_, there| {
            there.retain(|(_, listener)| listener.open);
            !there.is_empty()
        });
    }

    /// The listener that a socket is.
    pub(super) fn of_socket(&self, sk: u64) -> Option<&Arc<Listener>> {
        self.by_socket.get(&sk)
    }

    /// The listener that a local end belongs to: one of this address before one of any.
    pub(super) fn of_end(&self, netns: u32, end: &End) -> Option<&Arc<Listener>> {
        let there = self.by_port.get(&(netns, end.port))?;
        let latest = || there.iter().rev().map(|(_, listener)| listener);
        let any = |listener: &&Arc<Listener>| match (listener.at.address, end.address) {
            (IpAddr::V4(at), IpAddr::V4(_)) => at.is_unspecified(),
            // Unless it was told otherwise, such a socket takes both families.
            (IpAddr::V6(at), _) => at.is_unspecified(),
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        };
        latest()
            .find(|listener| listener.at.address == end.address)
            .or_else(|| latest().find(any))
    }
}
