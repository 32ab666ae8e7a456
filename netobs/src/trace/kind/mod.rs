//! What each kind of event shows. A new kind is a file beside this one with its [`Kind`], a `mod`
//! line, and an arm in each `match` below.

mod accept;
pub(super) mod connect;
pub(super) mod dns;
pub(super) mod listen_drop;
pub(super) mod listener;
pub(super) mod reset;
pub(super) mod retransmit;

use netobs_common::{
    event::{Endpoints, Event, EventKind},
    ledger::Role,
    owner::Owner,
};
use serde_json::Value;

/// Of the form of lines. It changes when a field changes its meaning or goes; new fields, kinds and
/// words may come without.
pub const SCHEMA_VERSION: u32 = 1;

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holds {
    /// A number that is never negative.
    Count,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
}

/// A field of a kind's `detail`.
pub(super) struct Field<E> {
    /// Its name in JSON.
    pub(super) name: &'static str,
    /// Its name in the column of details, where it is shown if there is a value; an empty one shows
    /// the value alone.
    pub(super) column: Option<&'static str>,
    pub(super) holds: Holds,
    /// One sentence without its full stop.
    pub(super) meaning: &'static str,
    /// Null where the event does not tell.
    pub(super) value: fn(&E) -> Value,
}

/// What a kind of event shows.
pub(super) struct Kind<E: 'static> {
    /// Of its name on a terminal: a number of the terminal's palette (ECMA-48, 30 to 37).
    pub(super) colour: u8,
    pub(super) fields: &'static [Field<E>],
    /// What is in every line.
    pub(super) common: fn(&E) -> Common,
}

/// What an event says about the things that are in every line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Common {
    /// Address of the `struct sock`; 0 when not known.
    pub(super) sk: u64,
    /// Both ends; remote zeros when there is no peer. `None`: not known.
    pub(super) ends: Option<Endpoints>,
    pub(super) role: Option<Role>,
    /// `skc_state`.
    pub(super) state: Option<u8>,
    /// Who owns the socket; zeros where the event does not tell.
    pub(super) owner: Owner,
    /// Whether the agent found out by looking.
    pub(super) polled: bool,
}

/// Calls a closure-like body with the event's structure and its kind's table.
macro_rules! with_kind {
    ($event:expr, |$e:ident, $kind:ident| $body:expr) => {
        match $event {
            Event::Retransmit($e) => {
                let $kind = &retransmit::KIND;
                $body
            }
            Event::ListenDrop($e) => {
                let $kind = &listen_drop::KIND;
                $body
            }
            Event::Listener($e) => {
                let $kind = &listener::KIND;
                $body
            }
            Event::Connect($e) => {
                let $kind = &connect::KIND;
                $body
            }
            Event::Accept($e) => {
                let $kind = &accept::KIND;
                $body
            }
            Event::Reset($e) => {
                let $kind = &reset::KIND;
                $body
            }
            Event::Dns($e) => {
                let $kind = &dns::KIND;
                $body
            }
        }
    };
}

/// What is in every line.
pub(super) fn common(event: &Event) -> Common {
    with_kind!(event, |e, kind| (kind.common)(e))
}

/// The event's `detail`: names and values.
pub(super) fn detail(event: &Event) -> Vec<(&'static str, Value)> {
    with_kind!(event, |e, kind| {
        let fields = kind.fields.iter();
        fields.map(|field| (field.name, (field.value)(e))).collect()
    })
}

/// A field as the schema and the columns know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Described {
    pub(super) name: &'static str,
    pub(super) column: Option<&'static str>,
    pub(super) holds: Holds,
    pub(super) meaning: &'static str,
}

/// The fields of a kind's `detail`.
pub(super) fn fields(kind: EventKind) -> Vec<Described> {
    fn of<E>(kind: &Kind<E>) -> Vec<Described> {
        let describe = |field: &Field<E>| Described {
            name: field.name,
            column: field.column,
            holds: field.holds,
            meaning: field.meaning,
        };
        kind.fields.iter().map(describe).collect()
    }
    match kind {
        EventKind::Retransmit => of(&retransmit::KIND),
        EventKind::ListenDrop => of(&listen_drop::KIND),
        EventKind::Listener => of(&listener::KIND),
        EventKind::Connect => of(&connect::KIND),
        EventKind::Accept => of(&accept::KIND),
        EventKind::Reset => of(&reset::KIND),
        EventKind::Dns => of(&dns::KIND),
    }
}

/// The colour of a kind's name.
pub(super) fn colour(kind: EventKind) -> u8 {
    match kind {
        EventKind::Retransmit => retransmit::KIND.colour,
        EventKind::ListenDrop => listen_drop::KIND.colour,
        EventKind::Listener => listener::KIND.colour,
        EventKind::Connect => connect::KIND.colour,
        EventKind::Accept => accept::KIND.colour,
        EventKind::Reset => reset::KIND.colour,
        EventKind::Dns => dns::KIND.colour,
    }
}

/// The kind with this name.
pub(super) fn by_name(name: &str) -> Option<EventKind> {
    let mut kinds = EventKind::ALL.iter();
    kinds.find(|kind| kind.name() == name).copied()
}

/// A word from a table, or null for a number that is not in it.
fn word(words: &[&'static str], number: impl Into<usize>) -> Value {
    words
        .get(number.into())
        .map_or(Value::Null, |word| Value::from(*word))
}

/// A number, or null for zero.
fn unless_zero(number: impl Into<u64>) -> Value {
    match number.into() {
        0 => Value::Null,
        number => number.into(),
    }
}

/// Microseconds of nanoseconds; null for zero.
fn micros(ns: u64) -> Value {
    match ns {
        0 => Value::Null,
        ns => (ns / 1_000).into(),
    }
}

/// The role with this number.
fn role(number: u8) -> Option<Role> {
    let all = [Role::Server, Role::Client];
    all.into_iter().find(|role| *role as u8 == number)
}

/// The name of an errno.
fn errno(number: i32) -> Value {
    match nix::errno::Errno::from_raw(number) {
        _ if number == 0 => Value::Null,
        nix::errno::Errno::UnknownErrno => format!("errno {number}").into(),
        errno => format!("{errno:?}").into(),
    }
}
