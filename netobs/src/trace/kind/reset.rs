//! A RST that was sent or received.

use netobs_common::{
    event::{NO_RESET_REASON, Reset},
    ledger::{Direction, ResetClass},
};
use serde_json::Value;

use super::{Common, Field, Holds, Kind, micros, role, word};

pub(in crate::trace) const DIRECTIONS: &[&str] =
    &[Direction::Sent.name(), Direction::Received.name()];
pub(in crate::trace) const REASONS: &[&str] = &[
    ResetClass::Connection.name(),
    ResetClass::Refused.name(),
    ResetClass::Abort.name(),
    ResetClass::Handshake.name(),
    ResetClass::NoSocket.name(),
    ResetClass::Overflow.name(),
];

pub(super) static KIND: Kind<Reset> = Kind {
    colour: 35,
    fields: &[
        Field {
            name: "direction",
            column: Some(""),
            holds: Holds::Word(DIRECTIONS),
            meaning: "Whether this host or the peer sent it",
            value: |event| word(DIRECTIONS, event.direction),
        },
        Field {
            name: "reason",
            column: Some(""),
            holds: Holds::Word(REASONS),
            meaning: "What it was about, by what the socket and the packet show",
            value: |event| word(REASONS, event.class),
        },
        Field {
            name: "kernel_reason",
            column: None,
            holds: Holds::Count,
            meaning: "The number of this kernel's sk_rst_reason; null where none was given",
            value: |event| match event.reason {
                NO_RESET_REASON => Value::Null,
                reason => reason.into(),
            },
        },
        Field {
            name: "age_us",
            column: Some("age_us"),
            holds: Holds::Count,
            meaning: "Since the connection began, microseconds; null when not known",
            value: |event| micros(event.age_ns),
        },
        Field {
            name: "idle_us",
            column: Some("idle_us"),
            holds: Holds::Count,
            meaning: "Since the socket last received or sent data, microseconds; null when not known",
            value: |event| micros(event.idle_ns),
        },
        Field {
            name: "bytes_acked",
            column: Some("sent"),
            holds: Holds::Count,
            meaning: "Bytes that the peer has acknowledged",
            value: |event| event.bytes_acked.into(),
        },
        Field {
            name: "bytes_received",
            column: Some("received"),
            holds: Holds::Count,
            meaning: "Bytes that came from the peer",
            value: |event| event.bytes_received.into(),
        },
    ],
    common: |event| Common {
        sk: event.sk,
        ends: Some(event.ends),
        owner: event.owner,
        role: role(event.role),
        state: Some(event.state),
        ..Common::default()
    },
};
