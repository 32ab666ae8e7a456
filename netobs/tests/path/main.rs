//! Path probes against real servers, in network namespaces of the tests' own.
//!
//! Each test plants one fault and demands that `netobs probe` names its phase, its cause and its
//! time, and that the JSON is as published. Times: a planted wait is never cut short, so measured
//! times are at least what was planted, less one tick of a 100 Hz kernel (10 ms); above, they get
//! 1.5 s for a busy machine on which three processes have to be scheduled in turn. Which fault it was
//! is told by the cause and the story, not by the time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step is a failed test"
)]

mod agent;
mod connect;
mod dns;
mod http;
#[path = "../../src/audit/tests/schema.rs"]
mod schema;
mod support;
mod tls;
