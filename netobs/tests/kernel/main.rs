//! The agent as it runs, against the kernel's own counters.
//!
//! Every test makes namespaces of its own, starts the real binary, causes a known number of events
//! and demands that the agent, the namespace's counters and that number agree. Root is needed, and
//! one test at a time (`--test-threads=1`): what is not in a namespace, such as the agent's
//! programs in the kernel, is counted too.
//!
//! **In guests.** `cargo xtask test --vm` runs the same tests on the kernels of the matrix, where
//! everything takes ten times as long. A test whose outcome cannot depend on the kernel goes into a
//! `mod host_only` of its file, and the guests are spared it; where a whole file is of that kind, it is
//! in the list `SPARED` of `xtask/src/test/matrix.rs`. A test that some kernel has nothing for
//! (no MPTCP, no such setting) says so by `only_where!(feature::...)`, which looks for the thing
//! itself, never at the version, and puts what it found into the matrix' report.
//!
//! **The agent.** [`support::Agent::shared`] serves every test that needs no agent of its own: to
//! start one is most of what a test costs in a guest.
//!
//! `NETOBS_BIN` names another binary than the one just built (the guests of the kernel matrix have
//! no build tree); `NETOBS_REQUIRE=1` makes a skipped test a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step is a failed test"
)]

mod accepts;
mod attribution;
mod audit;
mod cgroups;
mod churn;
mod connects;
mod diagnose;
mod dns;
mod handshakes;
mod life;
mod losses;
mod matrix;
mod missing;
mod nested;
mod overflow;
mod peers;
mod protocols;
mod queues;
mod resets;
mod retransmit;
mod robust;
mod start;
mod stories;
mod surface;
mod top;
mod trace;

mod support;
