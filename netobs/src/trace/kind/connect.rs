//! An outgoing handshake that completed or failed.

use netobs_common::{
    connection::ConnectFailure,
    event::{CONNECTED, Connect},
    ledger::Role,
};
use serde_json::Value;

use super::{Common, Field, Holds, Kind, errno, unless_zero};

/// In the order of their numbers, but for the first.
pub(in crate::trace) const OUTCOMES: &[&str] = &[
    "connected",
    ConnectFailure::Refused.name(),
    ConnectFailure::Reset.name(),
    ConnectFailure::TimedOut.name(),
    ConnectFailure::HostUnreachable.name(),
    ConnectFailure::NetUnreachable.name(),
    ConnectFailure::Abandoned.name(),
    ConnectFailure::NotSent.name(),
    ConnectFailure::Other.name(),
];

pub(super) static KIND: Kind<Connect> = Kind {
    colour: 34,
    fields: &[
        Field {
            name: "outcome",
            column: Some(""),
            holds: Holds::Word(OUTCOMES),
            meaning: "Whether the handshake completed, or why it did not",
            value: |event| match event.failure {
                CONNECTED => "connected".into(),
                number => ConnectFailure::ALL
                    .get(usize::from(number))
                    .map_or(Value::Null, |failure| failure.name().into()),
            },
        },
        Field {
            name: "latency_us",
            column: Some("latency_us"),
            holds: Holds::Count,
            meaning: "From connect() to now, microseconds",
            value: |event| (event.latency_ns / 1_000).into(),
        },
        Field {
            name: "syn_retransmits",
            column: Some("syn_retransmits"),
            holds: Holds::Count,
            meaning: "SYNs that were sent again; null for none",
            value: |event| unless_zero(event.syn_retransmits),
        },
        Field {
            name: "error",
            column: Some("error"),
            holds: Holds::Text,
            meaning: "The error that the process got or gets",
            value: |event| errno(i32::try_from(event.err).unwrap_or(i32::MAX)),
        },
    ],
    common: |event| Common {
        sk: event.sk,
        ends: Some(event.ends),
        owner: event.owner,
        role: Some(Role::Client),
        ..Common::default()
    },
};
