//! A connection that was taken from an accept queue.

use netobs_common::{event::Accept, ledger::Role};

use super::{Common, Field, Holds, Kind};

pub(super) static KIND: Kind<Accept> = Kind {
    colour: 32,
    fields: &[Field {
        name: "latency_us",
        column: Some("latency_us"),
        holds: Holds::Count,
        meaning: "From the end of the handshake to accept(), microseconds",
        value: |event| (event.latency_ns / 1_000).into(),
    }],
    common: |event| Common {
        sk: event.sk,
        ends: Some(event.ends),
        owner: event.owner,
        role: Some(Role::Server),
        ..Common::default()
    },
};
