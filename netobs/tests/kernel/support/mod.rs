//! What the tests share: the agent as a child process, its metrics, and the kernel to hold them to.

pub(crate) mod agent;
pub(crate) mod books;
pub(crate) mod init;
pub(crate) mod maps;
pub(crate) mod metrics;
pub(crate) mod objects;
pub(crate) mod program;

pub(crate) use agent::{Agent, run_to_end};
pub(crate) use books::{Ledger, settled};
pub(crate) use metrics::Metrics;

use std::{net::SocketAddr, time::Duration};

use testbed::Family;

/// How long anything may take that is not a TCP timer, also under an emulator.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Any address of a family, port of the kernel's choice.
pub(crate) fn any(family: Family) -> SocketAddr {
    match family {
        Family::V4 => "0.0.0.0:0".parse().unwrap(),
        Family::V6 => "[::]:0".parse().unwrap(),
    }
}

/// Whether an executable is on `PATH`.
pub(crate) fn has(command: &str) -> bool {
    testbed::require::command(command).is_ok()
}
