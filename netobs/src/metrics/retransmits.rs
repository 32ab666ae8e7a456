//! Retransmission families.

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    View,
    family::{OWNER, Value, families, owner, with_owner},
};
use crate::ledger::{
    owner::Names,
    retransmits::{RetransmitLabels, TYPES},
};

families! {
    SEGMENTS = Counter "netobs_tcp_retransmitted_segments" owner ["role", "port", "type"]
        "TCP segments sent again, as Tcp RetransSegs counts them, by namespace, end, port and why";
    FAILURES = Counter "netobs_tcp_retransmit_failures" owner ["role", "port"]
        "Attempts to send a TCP segment again that the local stack could not carry out";
}

pub(super) fn encode(view: &View<'_>, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let series = || view.retransmits.series().sorted();
    SEGMENTS.encode(
        encoder,
        series().flat_map(|(labels, values)| {
            let (owner, [role, port]) = common(labels, view.names);
            let seen = TYPES.iter().zip(values.segments);
            seen.filter(|(_, segments)| *segments > 0)
                .map(move |(kind, segments)| {
                    let own = [role.clone(), port.clone(), kind.name().into()];
                    (with_owner(owner.clone(), own), segments)
                })
        }),
    )?;
    FAILURES.encode(
        encoder,
        series()
            .filter(|(_, values)| values.failures > 0)
            .map(|(labels, values)| {
                let (owner, own) = common(labels, view.names);
                (with_owner(owner, own), values.failures)
            }),
    )
}

fn common(
    labels: Option<&RetransmitLabels>,
    names: &dyn Names,
) -> ([Value<'static>; OWNER], [Value<'static>; 2]) {
    let own = match labels {
        Some(labels) => [labels.role.name().into(), labels.port.into()],
        None => ["other"; 2].map(Value::from),
    };
    (owner(labels.map(|labels| &labels.owner), names), own)
}
