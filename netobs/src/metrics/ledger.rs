//! The kernel's own counters, and what of them is not attributed.

use prometheus_client::encoding::DescriptorEncoder;

use super::family::Family;
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

const NETSTAT: Family = Family {
    name: "netobs_netstat",
    help: "The kernel's own counter, as /proc/net/netstat and /proc/net/snmp of the namespace show it",
};
const UNATTRIBUTED: Family = Family {
    name: "netobs_ledger_unattributed",
    help: "The kernel's counter minus what netobs attributed, since netobs attached; 0 is the promise",
};

pub(super) fn encode(
    namespaces: &[NetnsView],
    encoder: &mut DescriptorEncoder<'_>,
) -> std::fmt::Result {
    NETSTAT.counter(
        encoder,
        namespaces.iter().flat_map(|view| {
            Counter::ALL.iter().filter_map(|counter| {
                let labels = [
                    ("netns", view.netns.into()),
                    ("counter", counter.name().into()),
                ];
                Some((labels, view.counters.get(*counter)?))
            })
        }),
    )?;
    UNATTRIBUTED.gauge(
        encoder,
        namespaces.iter().flat_map(|view| {
            view.unattributed.iter().map(|(counter, difference)| {
                (
                    [
                        ("netns", view.netns.into()),
                        ("counter", counter.name().into()),
                    ],
                    *difference,
                )
            })
        }),
    )
}
