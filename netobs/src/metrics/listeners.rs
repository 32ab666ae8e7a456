//! Listener families.

use prometheus_client::encoding::DescriptorEncoder;

use super::family::{Family, Label};
use crate::ledger::listeners::{ListenerBook, ListenerLabels, ListenerValues, Reason, Stage};

const DROPS: Family = Family {
    name: "netobs_tcp_listen_drops",
    help: "Connection attempts that a listener dropped, as TcpExt ListenDrops counts them, by the \
           packet that was dropped and why",
};
const OVERFLOWS: Family = Family {
    name: "netobs_tcp_listen_overflows",
    help: "Listen drops because the accept queue was full, as TcpExt ListenOverflows counts them",
};
const LENGTH: Family = Family {
    name: "netobs_tcp_accept_queue_length",
    help: "Connections that wait for accept()",
};
const LIMIT: Family = Family {
    name: "netobs_tcp_accept_queue_limit",
    help: "The accept queue limit in force: the lesser of the listen() argument and somaxconn; the \
           queue holds one more before it overflows",
};
const PEAK: Family = Family {
    name: "netobs_tcp_accept_queue_peak_length",
    help: "Longest accept queue seen in the last full wall-clock minute",
};
const FILL: Family = Family {
    name: "netobs_tcp_accept_queue_fill_ratio",
    help: "Accept queue length over its limit, looked at ten times a second",
};
const SYN_QUEUE: Family = Family {
    name: "netobs_tcp_syn_queue_length",
    help: "Connection requests that wait for the final ACK of their handshake",
};

const ENQUEUES: Family = Family {
    name: "netobs_tcp_accept_queue_enqueues",
    help: "Connections that entered the accept queue; only where the kernel lets it be seen",
};
const ACCEPTS: Family = Family {
    name: "netobs_tcp_accepts",
    help: "Connections that accept() took from the queue; only where the kernel lets it be seen",
};

pub(super) fn encode(book: &ListenerBook, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    DROPS.counter(
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
                        ("stage", stage.name().into()),
                        ("reason", reason.name().into()),
                    ];
                    (drops > 0).then_some((labels, drops))
                })
            })
        }),
    )?;
    OVERFLOWS.counter(
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
                    ("stage", stage.name().into()),
                ];
                (overflows > 0).then_some((labels, overflows))
            })
        }),
    )?;
    let counter =
        |family: Family, encoder: &mut DescriptorEncoder<'_>, value: fn(&ListenerValues) -> u64| {
            let seen = book.series().iter().filter(|(_, values)| value(values) > 0);
            family.counter(
                encoder,
                seen.map(|(labels, values)| (common(labels), value(values))),
            )
        };
    counter(ENQUEUES, encoder, |values| values.enqueued)?;
    counter(ACCEPTS, encoder, |values| values.accepted)?;
    let gauge =
        |family: Family, encoder: &mut DescriptorEncoder<'_>, value: fn(&ListenerValues) -> u64| {
            let rows = book
                .series()
                .iter()
                .map(|(labels, values)| (common(labels), value(values)));
            family.gauge(encoder, rows)
        };
    gauge(LENGTH, encoder, |values| values.queue_length)?;
    gauge(LIMIT, encoder, |values| values.queue_limit)?;
    gauge(PEAK, encoder, |values| values.peak)?;
    gauge(SYN_QUEUE, encoder, |values| values.syn_queue)?;
    FILL.histogram(
        encoder,
        book.series()
            .iter()
            .map(|(labels, values)| (common(labels), &values.fill)),
    )
}

fn common(labels: Option<&ListenerLabels>) -> [Label<'_>; 4] {
    match labels {
        Some(labels) => [
            ("netns", labels.netns.into()),
            ("process", labels.process.as_str().into()),
            ("local_address", labels.address.into()),
            ("local_port", labels.port.into()),
        ],
        None => {
            ["netns", "process", "local_address", "local_port"].map(|name| (name, "other".into()))
        }
    }
}
