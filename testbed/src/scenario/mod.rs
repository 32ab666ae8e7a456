//! Ready-made kernel events, exactly as many as asked for.
//!
//! Every scenario takes the counters before and after itself and fails unless the kernel counted
//! exactly its events; so other TCP traffic in the same namespaces must be quiet meanwhile. All are
//! bounded in time, and when one returns it causes no further events.

mod overflow;
mod retransmit;
mod send_failure;
mod time_wait;
mod transfer;

pub use overflow::{FinalAcks, final_ack_overflow, overflow_syns, overflow_syns_from};
pub use retransmit::{syn_ack_retransmits, syn_blackhole};
pub use send_failure::{failing_sends, unroutable_sends};
pub use time_wait::syns_before_time_wait;
pub use transfer::{OpenTransfer, Transfer, lossy_transfer};

use anyhow::{Result, ensure};

use crate::{
    netns::Ns,
    witness::{Counters, Delta},
};

/// Reads the counters once more, after a scenario has tidied up, and fails when one went further
/// than it should.
fn settled(ns: &Ns, before: &Counters, expected: &[(&str, &str, u64)]) -> Result<Delta> {
    let delta = Counters::read_in(ns)?.since(before);
    for (group, name, want) in expected {
        let got = delta.get(group, name);
        ensure!(
            got == *want,
            "{group} {name} grew by {got}, not by {want}; moved: {delta}"
        );
    }
    Ok(delta)
}
