//! The terminal view: readings in, frames out.
//!
//! Pure, but for the frames that [`view`] draws into a buffer: a [`Reading`] is what a source tells
//! at one moment, the [`Model`] makes rates and histories of one after the other, a [`sheet`] makes
//! rows of that, and [`State`] holds what the user has chosen: sheet, order, filter, pause. Where
//! readings come from, and which terminal gets the frames, is for the command.
//!
//! Nothing here asks the kernel, waits or writes. What is kept is bounded: [`MOST_ROWS`] rows a
//! sheet, and of each two minutes of history ([`model::SECONDS`] numbers).

mod filter;
mod input;
pub mod model;
mod reading;
pub mod sheet;
mod state;
mod text;
pub mod view;

pub use self::{
    filter::{Filter, Subject},
    input::{Action, KEYS, action},
    model::Model,
    reading::{
        Connected, Connects, Listener, Listening, Lost, Reading, Reset, Retransmitted, Sockets, Who,
    },
    state::{Overlay, State, Then},
    text::printable,
};

/// Most rows of one sheet; what a source tells beyond that is left out, which is shown.
pub const MOST_ROWS: usize = 4096;

/// Version of the JSON form; it changes when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;
