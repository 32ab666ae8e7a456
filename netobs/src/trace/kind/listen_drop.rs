//! Connections that a listener dropped.

use netobs_common::{
    event::{DROP_POLLED, ListenDrop},
    kernel::NO_REASON,
    ledger::{Reason, Role, Stage},
};
use serde_json::Value;

use super::{Common, Field, Holds, Kind, word};

pub(in crate::trace) const STAGES: &[&str] =
    &[Stage::Syn.name(), Stage::Ack.name(), Stage::Other.name()];
pub(in crate::trace) const REASONS: &[&str] = &[
    Reason::AcceptQueueFull.name(),
    Reason::SynQueueFull.name(),
    Reason::Other.name(),
];

pub(super) static KIND: Kind<ListenDrop> = Kind {
    colour: 31,
    fields: &[
        Field {
            name: "stage",
            column: Some(""),
            holds: Holds::Word(STAGES),
            meaning: "The packet of the handshake that was dropped: the SYN, the final ACK, or neither",
            value: |event| word(STAGES, event.stage),
        },
        Field {
            name: "reason",
            column: Some(""),
            holds: Holds::Word(REASONS),
            meaning: "Why",
            value: |event| word(REASONS, event.cause),
        },
        Field {
            name: "drops",
            column: Some("drops"),
            holds: Holds::Count,
            meaning: "Connections that were dropped; with method poll, since the line before or within \
                      the last 100 ms",
            value: |event| event.drops.into(),
        },
        Field {
            name: "accept_queue_length",
            column: Some("queue"),
            holds: Holds::Count,
            meaning: "Connections that wait for accept()",
            value: |event| event.ack_backlog.into(),
        },
        Field {
            name: "accept_queue_limit",
            column: Some("limit"),
            holds: Holds::Count,
            meaning: "The limit in force; the queue holds one more",
            value: |event| event.max_ack_backlog.into(),
        },
        Field {
            name: "drop_reason",
            column: None,
            holds: Holds::Count,
            meaning: "The number of this kernel's skb_drop_reason; null where none was given",
            value: |event| match event.reason {
                NO_REASON => Value::Null,
                reason => reason.into(),
            },
        },
    ],
    common: |event| Common {
        sk: event.sk,
        ends: Some(event.ends),
        owner: event.owner,
        role: Some(Role::Server),
        polled: event.method == DROP_POLLED,
        ..Common::default()
    },
};
