//! The kernel's own counters, and what of them is not attributed.

use prometheus_client::encoding::DescriptorEncoder;

use super::family::families;
use crate::sys::netstat::{Counter, Counters};

/// One namespace, as it was last read.
#[derive(Clone, Debug)]
pub struct NetnsView {
    /// Inode number.
    pub netns: u32,
    /// The kernel's counters.
    pub counters: Counters,
    /// Kernel minus attributed, for the counters that are held against it.
    pub unattributed: Vec<(Counter, i64)>,
}

families! {
    NETSTAT = Counter "netobs_netstat" ["netns", "counter"]
        "The kernel's own counter, as /proc/net/netstat and /proc/net/snmp of the namespace show it";
    UNATTRIBUTED = Gauge "netobs_ledger_unattributed" ["netns", "counter"]
        "The kernel's counter minus what netobs attributed, since netobs attached; 0 is the promise";
}

pub(super) fn encode(
    namespaces: &[NetnsView],
    encoder: &mut DescriptorEncoder<'_>,
) -> std::fmt::Result {
    NETSTAT.encode(
        encoder,
        namespaces.iter().flat_map(|view| {
            Counter::ALL.iter().filter_map(|counter| {
                let labels = [view.netns.into(), counter.name().into()];
                Some((labels, view.counters.get(*counter)?))
            })
        }),
    )?;
    UNATTRIBUTED.encode(
        encoder,
        namespaces.iter().flat_map(|view| {
            view.unattributed.iter().map(|(counter, difference)| {
                ([view.netns.into(), counter.name().into()], *difference)
            })
        }),
    )
}
