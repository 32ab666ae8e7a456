//! Listener families.

use prometheus_client::encoding::DescriptorEncoder;

use super::family::{Counter, Family, Gauge, Value, families};
use crate::ledger::listeners::{ListenerBook, ListenerLabels, ListenerValues, Reason, Stage};

families! {
    DROPS = Counter "netobs_tcp_listen_drops" ["netns", "process", "local_address", "local_port", "stage", "reason"]
        "Connection attempts that a listener dropped, as TcpExt ListenDrops counts them, by the \
        packet that was dropped and why";
    OVERFLOWS = Counter "netobs_tcp_listen_overflows" ["netns", "process", "local_address", "local_port", "stage"]
        "Listen drops because the accept queue was full, as TcpExt ListenOverflows counts them";
    LENGTH = Gauge "netobs_tcp_accept_queue_length" ["netns", "process", "local_address", "local_port"]
        "Connections that wait for accept()";
    LIMIT = Gauge "netobs_tcp_accept_queue_limit" ["netns", "process", "local_address", "local_port"]
        "The accept queue limit in force: the lesser of the listen() argument and somaxconn; the \
        queue holds one more before it overflows";
    PEAK = Gauge "netobs_tcp_accept_queue_peak_length" ["netns", "process", "local_address", "local_port"]
        "Longest accept queue seen in the last full wall-clock minute";
    FILL = Buckets "netobs_tcp_accept_queue_fill_ratio" ["netns", "process", "local_address", "local_port"]
        "Accept queue length over its limit, looked at ten times a second";
    SYN_QUEUE = Gauge "netobs_tcp_syn_queue_length" ["netns", "process", "local_address", "local_port"]
        "Connection requests that wait for the final ACK of their handshake";
    ENQUEUES = Counter "netobs_tcp_accept_queue_enqueues" ["netns", "process", "local_address", "local_port"]
        "Connections that entered the accept queue; only where the kernel lets it be seen";
    ACCEPTS = Counter "netobs_tcp_accepts" ["netns", "process", "local_address", "local_port"]
        "Connections that accept() took from the queue; only where the kernel lets it be seen";
}

pub(super) fn encode(book: &ListenerBook, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    DROPS.encode(
        encoder,
        book.series().iter().flat_map(|(labels, values)| {
            let [netns, process, address, port] = common(labels);
            Stage::ALL.into_iter().flat_map(move |stage| {
                let common = [
                    netns.clone(),
                    process.clone(),
                    address.clone(),
                    port.clone(),
                ];
                Reason::ALL.into_iter().filter_map(move |reason| {
                    let drops = values.counts.drops[stage as usize][reason as usize];
                    let [netns, process, address, port] = common.clone();
                    let labels = [
                        netns,
                        process,
                        address,
                        port,
                        stage.name().into(),
                        reason.name().into(),
                    ];
                    (drops > 0 || is_usual(stage, reason)).then_some((labels, drops))
                })
            })
        }),
    )?;
    OVERFLOWS.encode(
        encoder,
        book.series().iter().flat_map(|(labels, values)| {
            let [netns, process, address, port] = common(labels);
            Stage::ALL.into_iter().filter_map(move |stage| {
                let overflows = values.counts.overflows[stage as usize];
                let labels = [
                    netns.clone(),
                    process.clone(),
                    address.clone(),
                    port.clone(),
                    stage.name().into(),
                ];
                (overflows > 0 || is_usual(stage, Reason::AcceptQueueFull))
                    .then_some((labels, overflows))
            })
        }),
    )?;
    let counter = |family: Family<Counter, 4>,
                   encoder: &mut DescriptorEncoder<'_>,
                   value: fn(&ListenerValues) -> u64| {
        let seen = book.series().iter().filter(|(_, values)| value(values) > 0);
        family.encode(
            encoder,
            seen.map(|(labels, values)| (common(labels), value(values))),
        )
    };
    counter(ENQUEUES, encoder, |values| values.enqueued)?;
    counter(ACCEPTS, encoder, |values| values.accepted)?;
    let gauge = |family: Family<Gauge, 4>,
                 encoder: &mut DescriptorEncoder<'_>,
                 value: fn(&ListenerValues) -> u64| {
        // A listener that has closed has no queue; its counters stay a while.
        let rows = book
            .series()
            .iter()
            .filter(|(_, values)| values.sockets > 0)
            .map(|(labels, values)| (common(labels), value(values)));
        family.encode(encoder, rows)
    };
    gauge(LENGTH, encoder, |values| values.queue_length)?;
    gauge(LIMIT, encoder, |values| values.queue_limit)?;
    gauge(PEAK, encoder, |values| values.peak)?;
    gauge(SYN_QUEUE, encoder, |values| values.syn_queue)?;
    FILL.encode(
        encoder,
        book.series()
            .iter()
            .map(|(labels, values)| (common(labels), &values.fill)),
    )
}

/// Whether a row is shown before anything has been counted in it: `rate()` and `increase()` do not
/// see the rise of a counter whose first sample is not 0, and the first overflow matters most.
fn is_usual(stage: Stage, reason: Reason) -> bool {
    reason == Reason::AcceptQueueFull && stage != Stage::Other
}

pub(super) fn common(labels: Option<&ListenerLabels>) -> [Value<'_>; 4] {
    match labels {
        Some(labels) => [
            labels.netns.into(),
            labels.process.as_str().into(),
            labels.address.into(),
            labels.port.into(),
        ],
        None => ["other"; 4].map(Value::from),
    }
}
