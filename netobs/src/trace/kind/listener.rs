//! A listener that was opened, closed or found.

use netobs_common::{
    event::{Endpoints, LISTENER_CLOSED, LISTENER_FOUND, LISTENER_OPENED, ListenerChange},
    ledger::Role,
};
use serde_json::Value;

use super::{Common, Field, Holds, Kind};

pub(in crate::trace) const CHANGES: &[&str] = &["opened", "closed", "found"];

pub(super) static KIND: Kind<ListenerChange> = Kind {
    colour: 36,
    fields: &[Field {
        name: "change",
        column: Some(""),
        holds: Holds::Word(CHANGES),
        meaning: "Whether listen() was called, the socket was destroyed, or it was there already",
        value: |event| match event.change {
            LISTENER_OPENED => "opened".into(),
            LISTENER_CLOSED => "closed".into(),
            LISTENER_FOUND => "found".into(),
            _ => Value::Null,
        },
    }],
    common: |event| Common {
        sk: event.sk,
        ends: Some(ends(event)),
        role: Some(Role::Server),
        owner: event.owner,
        polled: event.change == LISTENER_FOUND,
        ..Common::default()
    },
};

fn ends(event: &ListenerChange) -> Endpoints {
    Endpoints {
        local_address: event.local_address,
        local_port: event.local_port,
        family: event.family,
        ..Endpoints::default()
    }
}
