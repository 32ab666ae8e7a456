//! Attribution: what the kernel counted against what netobs explains.
//!
//! [`listeners`] turns readings of listeners into listen drops and overflows by listener, stage and
//! reason; [`retransmits`] does the same for retransmitted segments; [`balance`] holds the sums
//! against the kernel's own counters, per network namespace; [`bursts`] keeps how many of something
//! happened in each tenth of a second. All of it is pure: readings in, counts
//! out, no clock and no system calls.

pub mod accepts;
pub mod balance;
pub mod bursts;
pub mod connects;
pub mod cumulative;
pub mod dns;
pub mod histogram;
pub mod listeners;
pub mod namespace;
pub mod owner;
pub mod paths;
pub mod resets;
pub mod retransmits;
pub mod series;
pub mod stories;
