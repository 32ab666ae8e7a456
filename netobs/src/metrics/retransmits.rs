//! Retransmission families.

use netobs_common::ledger::Role;
use prometheus_client::encoding::DescriptorEncoder;

use super::family::{Family, Label};
use crate::ledger::retransmits::{RetransmitBook, RetransmitLabels, TYPES};

const SEGMENTS: Family = Family {
    name: "netobs_tcp_retransmitted_segments",
    help: "TCP segments sent again, as Tcp RetransSegs counts them, by namespace, end, port and why",
};
const FAILURES: Family = Family {
    name: "netobs_tcp_retransmit_failures",
    help: "Attempts to send a TCP segment again that the local stack could not carry out",
};

pub(super) fn encode(
    book: &RetransmitBook,
    encoder: &mut DescriptorEncoder<'_>,
) -> std::fmt::Result {
    SEGMENTS.counter(
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
                            ("type", kind.name().into()),
                        ],
                        segments,
                    )
                })
        }),
    )?;
    FAILURES.counter(
        encoder,
        book.series()
            .iter()
            .filter(|(_, values)| values.failures > 0)
            .map(|(labels, values)| (common(labels), values.failures)),
    )
}

fn common(labels: Option<&RetransmitLabels>) -> [Label<'static>; 3] {
    match labels {
        Some(labels) => [
            // 0 stands for "the method cannot tell": better no namespace than a wrong one.
            (
                "netns",
                if labels.netns == 0 {
                    "".into()
                } else {
                    labels.netns.into()
                },
            ),
            (
                "role",
                if labels.role == Role::Server {
                    "server"
                } else {
                    "client"
                }
                .into(),
            ),
            ("port", labels.port.into()),
        ],
        None => [
            ("netns", "other".into()),
            ("role", "other".into()),
            ("port", "other".into()),
        ],
    }
}
