//! Events as people and programs read them: one line each, as aligned columns or as JSON.
//!
//! An [`Event`](netobs_common::event::Event) becomes a [`Line`], whatever it comes from: the ring, a
//! recording, or an agent that sent lines already. What each kind of event shows is a table in its
//! file under `kind/`; JSON, columns and the published schema are all written from these tables, so
//! a new kind of event is one small file and its arms in `kind/mod.rs`.

mod back;
mod columns;
mod detail;
mod filter;
mod kind;
mod line;
mod owners;
mod schema;
mod stream;
mod when;

pub use self::{
    columns::{Columns, Style},
    detail::Detail,
    filter::{Filter, Subject},
    kind::SCHEMA_VERSION,
    line::{End, Line, Lines, Owner, Socket, Workloads},
    schema::{page, schema},
    stream::{Format, Outlet, Sender, Tally, Writing, queue},
    when::{Moment, MomentError, parse_moment},
};
