//! Events: what travels through the ring buffer, with full detail.
//!
//! An event is an [`EventHeader`] followed by the rest of the structure that its kind names.

mod accept;
mod connect;
mod dns;
mod listen_drop;
mod listener;
mod reset;
mod retransmit;

pub use accept::Accept;
pub use connect::{CONNECTED, Connect};
pub use dns::{DNS_ANSWERED, DNS_LATE, DNS_UNANSWERED, Dns};
pub use listen_drop::{DROP_POLLED, DROP_SEEN, ListenDrop};
pub use listener::{LISTENER_CLOSED, LISTENER_FOUND, LISTENER_OPENED, ListenerChange};
pub use reset::{NO_RESET_REASON, Reset};
pub use retransmit::Retransmit;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::owner::Owner;

macro_rules! events {
    ($($(#[$doc:meta])+ $name:ident($type:ident: $($owner:ident).+) = $label:literal,)+) => {
        /// What an event is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum EventKind { $($(#[$doc])+ $name,)+ }

        impl EventKind {
            /// Every kind, in numeric order.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The kind with this number.
            #[must_use]
            pub fn from_u32(number: u32) -> Option<Self> {
                $(if number == Self::$name as u32 { return Some(Self::$name); })+
                None
            }

            /// Its name in `netobs trace` and in messages.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }

            /// Size of its structure, in bytes.
            #[must_use]
            pub const fn size(self) -> usize {
                match self { $(Self::$name => size_of::<$type>()),+ }
            }
        }

        /// A decoded event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(clippy::large_enum_variant, reason = "looked at and let go, never kept by the many")]
        pub enum Event { $($(#[$doc])+ $name($type),)+ }

        impl Event {
            /// Decodes the bytes of one ring buffer record.
            ///
            /// # Errors
            ///
            /// When the bytes are shorter than a header or than the kind's structure, or the kind
            /// is unknown. Bytes behind the structure (the ring's padding) are ignored.
            pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                let (header, _) = EventHeader::read_from_prefix(bytes)
                    .map_err(|_| DecodeError::Short { kind: None, len: bytes.len() })?;
                let kind = EventKind::from_u32(header.kind)
                    .ok_or(DecodeError::UnknownKind(header.kind))?;
                match kind {
                    $(EventKind::$name => <$type>::read_from_prefix(bytes)
                        .map(|(event, _)| Self::$name(event))
                        .map_err(|_| DecodeError::Short { kind: Some(kind), len: bytes.len() }),)+
                }
            }

            /// Its bytes, as they came out of the ring.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                match self { $(Self::$name(event) => event.as_bytes()),+ }
            }

            /// Whose socket it is about.
            #[must_use]
            pub fn owner(&self) -> Option<&Owner> {
                match self { $(Self::$name(event) => Some(&event.$($owner).+)),+ }
            }

            /// The header that every event begins with.
            #[must_use]
            pub const fn header(&self) -> &EventHeader {
                match self { $(Self::$name(event) => &event.header),+ }
            }
        }

        $(
            const _: () = assert!(core::mem::offset_of!($type, header) == 0);
            impl HasKind for $type { const KIND: EventKind = EventKind::$name; }
        )+
    };
}

/// Ties a structure to its number, so that neither side writes the number by hand. Any bytes are a
/// valid one.
pub trait HasKind: FromBytes {
    /// The structure's kind.
    const KIND: EventKind;
}

events! {
    /// A segment, or several, was retransmitted, or could not be.
    Retransmit(Retransmit: owner) = "retransmit",
    /// A connection was dropped by its listener.
    ListenDrop(ListenDrop: owner) = "listen-drop",
    /// A listener was opened, closed or found.
    Listener(ListenerChange: owner) = "listener",
    /// An outgoing handshake completed or failed.
    Connect(Connect: owner) = "connect",
    /// A connection was taken from an accept queue.
    Accept(Accept: owner) = "accept",
    /// A RST was sent or received.
    Reset(Reset: owner) = "reset",
    /// A name lookup came to an end.
    Dns(Dns: lookup.owner) = "dns",
}

/// The beginning of every event.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct EventHeader {
    /// CLOCK_MONOTONIC, ns.
    pub ktime_ns: u64,
    /// An [`EventKind`].
    pub kind: u32,
    /// Inode number of the network namespace; 0 when unknown.
    pub netns: u32,
}

/// The two ends of a connection.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Endpoints {
    /// IPv4 in the first four bytes, or IPv6; network byte order.
    pub local_address: [u8; 16],
    /// IPv4 in the first four bytes, or IPv6; network byte order. Zeros for a listener.
    pub remote_address: [u8; 16],
    /// Host byte order.
    pub local_port: u16,
    /// Host byte order; 0 for a listener.
    pub remote_port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Keeps the size a multiple of four.
    pub reserved: u16,
}

/// Bytes that are not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Too few bytes for the header (no kind) or for the structure.
    Short {
        /// The kind that the header named, when there was one.
        kind: Option<EventKind>,
        /// How many bytes there were.
        len: usize,
    },
    /// A kind that this agent does not know.
    UnknownKind(u32),
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short {
                kind: Some(kind),
                len,
            } => {
                write!(
                    f,
                    "{} event of {len} bytes, {} needed",
                    kind.name(),
                    kind.size()
                )
            }
            Self::Short { kind: None, len } => write!(f, "event of {len} bytes has no header"),
            Self::UnknownKind(kind) => write!(f, "unknown event kind {kind}"),
        }
    }
}

impl core::error::Error for DecodeError {}
