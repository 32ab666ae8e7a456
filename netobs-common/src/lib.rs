//! The contract between netobs's kernel side and its agent.
//!
//! Everything that crosses the boundary is plain old data: `repr(C)`, integers only, no implicit
//! padding (checked by zerocopy's derives at compile time). Conversions to richer types happen in
//! the agent, and are checked.
#![no_std]

pub mod burst;
pub mod connection;
pub mod dns;
pub mod event;
pub mod kernel;
pub mod ledger;
pub mod names;
pub mod offsets;
pub mod owner;
pub mod probe;

#[cfg(feature = "user")]
mod pod;
