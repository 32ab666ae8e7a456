//! The agent as it runs, against the kernel's own counters.
//!
//! Every test makes namespaces of its own, starts the real binary, causes a known number of events
//! and demands that the agent, the namespace's counters and that number agree. Root is needed, and
//! one test at a time (`--test-threads=1`): what is not in a namespace, such as the agent's
//! programs in the kernel, is counted too.
//!
//! `NETOBS_BIN` names another binary than the one just built (the guests of the kernel matrix have
//! no build tree); `NETOBS_REQUIRE=1` makes a skipped test a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step is a failed test"
)]

mod dns;
mod handshakes;
mod life;
mod matrix;
mod overflow;
mod retransmit;
mod robust;
mod start;

mod support;
