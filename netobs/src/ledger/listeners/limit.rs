//! What sets the limit of an accept queue: the `listen()` argument, or `somaxconn`.
//!
//! kernel: net/socket.c `__sys_listen` cuts the argument to `somaxconn`; net/ipv4/af_inet.c
//! `inet_listen` stores the lesser of the two in `sk_max_ack_backlog`, again at each further
//! `listen()` of the same socket, which no event tells of.

use netobs_common::ledger::{ASKED_UNKNOWN, ListenerReading};

/// Which of the two sets a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Binding {
    /// The program asked for no more: `somaxconn` has no say.
    ListenArgument = 0,
    /// The program asked for more than `somaxconn` was.
    Somaxconn = 1,
    /// The argument was not seen.
    Unknown = 2,
}

impl Binding {
    /// Every one, in index order.
    pub const ALL: [Self; 3] = [Self::ListenArgument, Self::Somaxconn, Self::Unknown];

    /// The value of the `limit` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ListenArgument => "listen_argument",
            Self::Somaxconn => "somaxconn",
            Self::Unknown => "unknown",
        }
    }
}

/// What the socket asked `listen()` for; `None` when that was not seen, or its limit is not the one
/// that it got for it.
pub(super) fn asked(reading: &ListenerReading) -> Option<u32> {
    let ListenerReading { socket, listener } = reading;
    let seen = listener.asked != ASKED_UNKNOWN
        && socket.max_ack_backlog == listener.granted
        && listener.granted <= listener.asked;
    seen.then_some(listener.asked)
}

/// Which of the two sets the socket's limit.
pub(super) fn binding(reading: &ListenerReading) -> Binding {
    match asked(reading) {
        None => Binding::Unknown,
        Some(asked) if asked > reading.socket.max_ack_backlog => Binding::Somaxconn,
        Some(_) => Binding::ListenArgument,
    }
}
