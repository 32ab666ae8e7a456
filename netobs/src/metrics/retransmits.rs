//! Retransmission families.

use netobs_common::ledger::Role;
use prometheus_client::encoding::DescriptorEncoder;

use super::family::{Value, families};
use crate::ledger::retransmits::{RetransmitBook, RetransmitLabels, TYPES};

families! {
    SEGMENTS = Counter "netobs_tcp_retransmitted_segments" ["netns", "role", "port", "type"]
        "TCP segments sent again, as Tcp RetransSegs counts them, by namespace, end, port and why";
    FAILURES = Counter "netobs_tcp_retransmit_failures" ["netns", "role", "port"]
        "Attempts to send a TCP segment again that the local stack could not carry out";
}

pub(super) fn encode(
    book: &RetransmitBook,
    encoder: &mut DescriptorEncoder<'_>,
) -> std::fmt::Result {
    SEGMENTS.encode(
        encoder,
        book.series().iter().flat_map(|(labels, values)| {
            let [netns, role, port] = common(labels);
            TYPES
                .iter()
                .zip(values.segments)
                .filter(|(_, segments)| *segments > 0)
                .map(move |(kind, segments)| {
                    (
                        [
                            netns.clone(),
                            role.clone(),
                            port.clone(),
                            kind.name().into(),
                        ],
                        segments,
                    )
                })
        }),
    )?;
    FAILURES.encode(
        encoder,
        book.series()
            .iter()
            .filter(|(_, values)| values.failures > 0)
            .map(|(labels, values)| (common(labels), values.failures)),
    )
}

fn common(labels: Option<&RetransmitLabels>) -> [Value<'static>; 3] {
    match labels {
        Some(labels) => [
            // 0 stands for "the method cannot tell": better no namespace than a wrong one.
            match labels.netns {
                0 => "".into(),
                netns => netns.into(),
            },
            match labels.role {
                Role::Server => "server".into(),
                Role::Client => "client".into(),
            },
            labels.port.into(),
        ],
        None => ["other"; 3].map(Value::from),
    }
}
