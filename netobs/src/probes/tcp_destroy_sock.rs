//! Sockets that go.

use netobs_common::{
    offsets::Offset::{
        IcskQueueLength, InetLocalPort, SkAckBacklog, SkDrops, SkLocalPort, SkMaxAckBacklog, SkNet,
        SkRemoteAddress, SkRemotePort, SkState, TpTotalRetrans,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "tcp_destroy_sock",
    observes: "a listener's final counts, and retransmissions that no event told of",
    cost: "once per TCP socket",
    without: "what a listener dropped in its last 100 ms is not attributed",
    requires: None,
    unless: None,
    optional: false,
    methods: &[Method {
        counts: Program::TcpDestroySock,
        programs: &[(
            Program::TcpDestroySock.name(),
            Attachment::TpBtf {
                tracepoint: "tcp_destroy_sock",
            },
        )],
        offsets: &[
            SkDrops,
            SkAckBacklog,
            SkMaxAckBacklog,
            IcskQueueLength,
            SkState,
            SkNet,
            SkLocalPort,
            SkRemotePort,
            TpTotalRetrans,
            InetLocalPort,
            SkRemoteAddress,
        ],
        also: Requirement::NOTHING,
    }],
};
