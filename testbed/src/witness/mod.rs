//! What the kernel itself says, read without BPF: the second witness.

pub mod counters;
pub mod diag;
pub mod sockets;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub use counters::{Counters, Delta};

use crate::netns::Ns;

/// Pause between two looks at a condition: well below every TCP timer, cheap enough to repeat.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks at `condition` until it holds; `what` names it in the error.
///
/// # Errors
/// When `condition` fails, or does not hold within `timeout`.
pub fn wait_until(
    timeout: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    wait_for(timeout, what, || Ok(condition()?.then_some(())))
}

/// Asks `attempt` until it has an answer; `what` names it in the error.
///
/// # Errors
/// When `attempt` fails, or has no answer within `timeout`.
pub fn wait_for<T>(
    timeout: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        // The clock first: a condition that took long to look at is still looked at once more.
        let late = start.elapsed() >= timeout;
        if let Some(answer) = attempt()? {
            return Ok(answer);
        }
        if late {
            bail!("gave up after {timeout:?} waiting for {what}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until a counter of `ns` has grown by exactly `want` since `before`.
///
/// # Errors
/// When it grows further than that, or not so far within `timeout`; the error lists every TCP
/// counter that moved.
pub fn wait_counted(
    ns: &Ns,
    before: &Counters,
    group: &str,
    name: &str,
    want: u64,
    timeout: Duration,
) -> Result<Delta> {
    let start = Instant::now();
    loop {
        let late = start.elapsed() >= timeout;
        let delta = Counters::read_in(ns)?.since(before);
        let got = delta.get(group, name);
        if got == want {
            return Ok(delta);
        }
        if got > want || late {
            bail!(
                "{group} {name} of {} grew by {got}, not by {want}, in {:?}; moved: {delta}",
                ns.name(),
                start.elapsed(),
            );
        }
        std::thread::sleep(PAUSE);
    }
}
