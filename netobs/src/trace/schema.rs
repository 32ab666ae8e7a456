//! The published form of lines, written from the tables of kinds.

use std::fmt::Write as _;

use netobs_common::event::EventKind;
use serde_json::{Value, json};

use super::kind::{self, Described, Holds, SCHEMA_VERSION};

/// JSON Schema (2020-12) of one line.
#[must_use]
pub fn schema() -> Value {
    let kinds = EventKind::ALL.iter().map(|kind| {
        json!({
            "properties": {
                "event": { "const": kind.name() },
                "detail": detail(*kind),
            }
        })
    });
    let names: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
    let nullable = |name: &str, description: &str| {
        json!({ "anyOf": [{ "$ref": format!("#/$defs/{name}") }, { "type": "null" }],
                "description": description })
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://netobs.example/schemas/trace-1.json",
        "title": "One line of netobs trace",
        "description": "Fields, kinds of events and words may be added without a new \
                        schema_version; none is removed and none changes its meaning.",
        "type": "object",
        "required": ["schema_version", "time", "ktime_ns", "event", "method", "netns", "socket",
                     "local", "peer", "owner", "listener", "detail"],
        "properties": {
            "schema_version": { "const": SCHEMA_VERSION },
            "time": { "type": "string", "format": "date-time",
                      "description": "Wall-clock time with its zone, RFC 3339, microseconds" },
            "ktime_ns": { "type": "integer", "minimum": 0,
                          "description": "The kernel's monotonic clock, nanoseconds" },
            "event": { "enum": names },
            "method": { "enum": ["event", "poll"],
                        "description": "Whether it was seen happening, or found by looking" },
            "netns": { "type": ["integer", "null"], "minimum": 0,
                       "description": "Inode number of the network namespace" },
            "socket": { "$ref": "#/$defs/socket" },
            "local": nullable("end", "The local end"),
            "peer": nullable("end", "The remote end; null when it is not known"),
            "owner": nullable("owner", "Who the socket belongs to; null when not known"),
            "listener": nullable("end", "Where the socket's listener listens"),
            "detail": { "type": "object" },
        },
        "oneOf": kinds.collect::<Vec<_>>(),
        "$defs": {
            "end": {
                "type": "object",
                "required": ["address", "port"],
                "properties": {
                    "address": { "type": "string", "description": "IPv4 or IPv6" },
                    "port": { "type": "integer", "minimum": 0, "maximum": 65535 },
                },
            },
            "socket": {
                "type": "object",
                "required": ["id", "state", "role"],
                "properties": {
                    "id": { "type": ["string", "null"],
                            "description": "Tells sockets apart within one output" },
                    "state": { "type": ["string", "null"], "description": "As ss names it" },
                    "role": { "enum": ["server", "client", null] },
                },
            },
            "owner": {
                "type": "object",
                "required": ["pid", "process", "container_id", "pod_uid"],
                "properties": {
                    "pid": { "type": ["integer", "null"], "minimum": 0 },
                    "process": { "type": "string" },
                    "container_id": { "type": ["string", "null"] },
                    "pod_uid": { "type": ["string", "null"] },
                },
            },
        },
    })
}

fn detail(kind: EventKind) -> Value {
    let fields = kind::fields(kind);
    let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
    let properties: serde_json::Map<String, Value> = fields
        .iter()
        .map(|field| (field.name.to_owned(), property(field)))
        .collect();
    json!({ "type": "object", "required": names, "properties": properties })
}

fn property(field: &Described) -> Value {
    let mut schema = match field.holds {
        Holds::Count => json!({ "type": ["integer", "null"], "minimum": 0 }),
        Holds::Word(words) => {
            let words = words.iter().map(|word| Value::from(*word));
            json!({ "enum": words.chain([Value::Null]).collect::<Vec<_>>() })
        }
        Holds::Text => json!({ "type": ["string", "null"] }),
    };
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), field.meaning.into());
    }
    schema
}

/// The kinds of events and their fields, as Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    for kind in EventKind::ALL {
        let _ = write!(
            page,
            "\n## {}\n\n| field of `detail` | holds | meaning |\n|---|---|---|\n",
            kind.name()
        );
        for field in kind::fields(*kind) {
            let holds = match field.holds {
                Holds::Count => "number".to_owned(),
                Holds::Text => "text".to_owned(),
                Holds::Word(words) => format!("`{}`", words.join("` `")),
            };
            let _ = writeln!(page, "| `{}` | {holds} | {}. |", field.name, field.meaning);
        }
    }
    page
}
