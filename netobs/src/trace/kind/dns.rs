//! A name lookup that came to an end.

use netobs_common::event::{DNS_ANSWERED, DNS_LATE, DNS_UNANSWERED, Dns};
use serde_json::Value;

use super::{Common, Field, Holds, Kind, micros, unless_zero};
use crate::ledger::dns::{Question, response_name};

/// In the order of their numbers; none is zero.
pub(in crate::trace) const OUTCOMES: &[(u16, &str)] = &[
    (DNS_ANSWERED, "answered"),
    (DNS_UNANSWERED, "unanswered"),
    (DNS_LATE, "late"),
];
const WORDS: &[&str] = &[OUTCOMES[0].1, OUTCOMES[1].1, OUTCOMES[2].1];
/// Of an answer's flags: the response code.
const RESPONSE_CODE: u16 = 0x000f;

pub(super) static KIND: Kind<Dns> = Kind {
    colour: 32,
    fields: &[
        Field {
            name: "outcome",
            column: Some(""),
            holds: Holds::Word(WORDS),
            meaning: "Whether an answer came in time, not at all, or after the lookup had been counted \
                      as unanswered",
            value: |event| {
                let mut all = OUTCOMES.iter();
                all.find(|(number, _)| *number == event.outcome)
                    .map_or(Value::Null, |(_, word)| Value::from(*word))
            },
        },
        Field {
            name: "question",
            column: Some(""),
            holds: Holds::Text,
            meaning: "The name that was asked for, escaped as in RFC 4343; null when the query has none \
                      that can be read",
            value: |event| question(event).map_or(Value::Null, |question| question.name.into()),
        },
        Field {
            name: "type",
            column: Some(""),
            holds: Holds::Text,
            meaning: "The type that was asked for, such as A or AAAA",
            value: |event| question(event).map_or(Value::Null, |it| it.kind_name().into()),
        },
        Field {
            name: "response_code",
            column: Some(""),
            holds: Holds::Text,
            meaning: "The answer's response code; null without an answer",
            value: |event| match event.outcome {
                DNS_ANSWERED => response_name((event.answer_flags & RESPONSE_CODE).into()).into(),
                _ => Value::Null,
            },
        },
        Field {
            name: "latency_us",
            column: Some("latency_us"),
            holds: Holds::Count,
            meaning: "From the first query to now, microseconds",
            value: |event| micros(event.latency_ns),
        },
        Field {
            name: "queries",
            column: Some("queries"),
            holds: Holds::Count,
            meaning: "Datagrams sent for it",
            value: |event| unless_zero(event.lookup.sends),
        },
        Field {
            name: "answers",
            column: None,
            holds: Holds::Count,
            meaning: "Records in the answer section, as the answer claims",
            value: |event| event.answers.into(),
        },
    ],
    common: |event| Common {
        ends: Some(event.lookup.ends),
        owner: event.lookup.owner,
        ..Common::default()
    },
};

fn question(event: &Dns) -> Option<Question> {
    let bytes = &event.lookup.question;
    let known = usize::from(event.lookup.question_bytes).min(bytes.len());
    Question::decode(bytes.get(..known)?).ok()
}
