//! Families of bursts: how many in each tenth of a second.

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    View,
    family::{Buckets, Family, Gauge, Rendered, Value, families, with_owner},
    listeners,
};
use crate::ledger::{
    bursts::{BurstBook, BurstValues},
    listeners::ListenerLabels,
};

families! {
    RETRANSMITS = Buckets "netobs_tcp_retransmits_per_100ms" ["netns"]
        "Segments sent again in each 100 ms of the kernel's clock; every 100 ms is one observation, \
        those without any included";
    RETRANSMITS_PEAK = Gauge "netobs_tcp_retransmits_per_100ms_peak" ["netns"]
        "Most segments sent again in 100 ms of the last full wall-clock minute";
    RETRANSMITS_TIME = Gauge "netobs_tcp_retransmits_per_100ms_peak_timestamp_seconds" ["netns"]
        "When those 100 ms began; not shown for a minute without any";
    DROPS = Buckets "netobs_tcp_listen_drops_per_100ms" owner ["local_address", "local_port"]
        "Connections dropped by a listener in each 100 ms of the kernel's clock; every 100 ms is one \
        observation, those without any included";
    DROPS_PEAK = Gauge "netobs_tcp_listen_drops_per_100ms_peak" owner ["local_address", "local_port"]
        "Most connections dropped by a listener in 100 ms of the last full wall-clock minute";
    DROPS_TIME = Gauge "netobs_tcp_listen_drops_per_100ms_peak_timestamp_seconds" owner ["local_address", "local_port"]
        "When those 100 ms began; not shown for a minute without any";
}

/// What is in bins.
pub struct Bursts {
    /// Segments sent again, by network namespace.
    pub retransmits: BurstBook<u32>,
    /// Listen drops.
    pub drops: BurstBook<ListenerLabels>,
}

pub(super) fn encode(view: &View<'_>, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let netns = |labels: Option<&u32>| match labels {
        // 0 stands for "the method cannot tell".
        Some(0) => ["".into()],
        Some(netns) => [(*netns).into()],
        None => ["other".into()],
    };
    let families = (RETRANSMITS, RETRANSMITS_PEAK, RETRANSMITS_TIME);
    of(&view.bursts.retransmits, families, &netns, encoder)?;
    let families = (DROPS, DROPS_PEAK, DROPS_TIME);
    let listener = |labels: Option<&ListenerLabels>| {
        let (owner, listener) = listeners::common(labels, view.names);
        with_owner(owner, listener)
    };
    of(&view.bursts.drops, families, &listener, encoder)
}

fn of<L: Eq + std::hash::Hash + Clone + Ord, const N: usize>(
    book: &BurstBook<L>,
    families: (Family<Buckets, N>, Family<Gauge, N>, Family<Gauge, N>),
    labels: &dyn Fn(Option<&L>) -> [Value<'static>; N],
    encoder: &mut DescriptorEncoder<'_>,
) -> std::fmt::Result {
    let (bins, peak, time) = families;
    let series: Vec<(Rendered<N>, &BurstValues)> = book
        .series()
        .sorted()
        .map(|(set, values)| (Rendered::new(&bins.labels, &labels(set)), values))
        .collect();
    let rows = || series.iter();
    bins.encode_rendered(
        encoder,
        rows().map(|(labels, values)| (labels, [], &values.histogram)),
    )?;
    peak.encode_rendered(
        encoder,
        rows().map(|(labels, values)| (labels, [], values.peak.count)),
    )?;
    let began =
        |values: &BurstValues| (values.peak.count > 0).then(|| seconds(values.peak.wall_ns));
    time.encode_rendered(
        encoder,
        rows().filter_map(|(labels, values)| Some((labels, [], began(values)?))),
    )
}

#[allow(
    clippy::cast_precision_loss,
    reason = "tenths of milliseconds of a wall-clock time are kept"
)]
fn seconds(wall_ns: u64) -> f64 {
    (wall_ns / 1_000_000) as f64 / 1e3
}
