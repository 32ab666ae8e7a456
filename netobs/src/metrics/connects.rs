//! Families of outgoing handshakes.

use netobs_common::connection::ConnectFailure;
use prometheus_client::encoding::DescriptorEncoder;

use super::{
    View,
    family::{OWNER, Value, families, owner, with_owner},
};
use crate::ledger::connects::ConnectValues;

families! {
    CONNECTS = Counter "netobs_tcp_connects" owner ["port"]
        "Outgoing TCP handshakes that completed";
    LATENCY = Buckets "netobs_tcp_connect_latency_seconds" owner ["port"]
        "Time from connect() to the end of the handshake; a SYN sent again shows as 1, 3, 7... \
        seconds";
    FAILURES = Counter "netobs_tcp_connect_failures" owner ["port", "error_type"]
        "Outgoing TCP handshakes that did not complete; abandoned: the process closed the socket \
        while its SYN was unanswered; not_sent: no free local port, mostly";
    WAITING = Gauge "netobs_tcp_connects_waiting" owner ["port"]
        "Outgoing TCP handshakes under way: SYNs sent and not answered yet";
}

/// Errors of which a counter is shown before there was one: the first one matters most.
const USUAL: [ConnectFailure; 3] = [
    ConnectFailure::Refused,
    ConnectFailure::TimedOut,
    ConnectFailure::Abandoned,
];

pub(super) fn encode(view: &View<'_>, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let series: Vec<([Value<'static>; OWNER], Value<'static>, &ConnectValues)> = view
        .connects
        .series()
        .sorted()
        .map(|(labels, values)| {
            let port = labels.map_or("other".into(), |labels| labels.port.into());
            let owner = owner(labels.map(|labels| &labels.owner), view.names);
            (owner, port, values)
        })
        .collect();
    let rows = || {
        series
            .iter()
            .map(|(owner, port, values)| (with_owner(owner.clone(), [port.clone()]), *values))
    };
    CONNECTS.encode(
        encoder,
        rows().map(|(labels, values)| (labels, values.latency.count())),
    )?;
    LATENCY.encode(
        encoder,
        rows().map(|(labels, values)| (labels, &values.latency)),
    )?;
    FAILURES.encode(
        encoder,
        series.iter().flat_map(|(owner, port, values)| {
            let all = ConnectFailure::ALL.iter().zip(values.failures);
            all.filter(|(failure, count)| *count > 0 || USUAL.contains(failure))
                .map(move |(failure, count)| {
                    let own = [port.clone(), failure.name().into()];
                    (with_owner(owner.clone(), own), count)
                })
        }),
    )?;
    WAITING.encode(
        encoder,
        rows().map(|(labels, values)| (labels, values.waiting())),
    )
}
