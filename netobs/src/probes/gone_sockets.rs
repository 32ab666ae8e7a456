//! Connections whose end was not seen.

use netobs_common::{
    offsets::Offset::{
        InetLocalPort, SkLocalPort, SkReferences, SkRemoteAddress, SkRemotePort, SkState,
        TpTotalRetrans,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "gone_sockets",
    observes: "connections whose end no program was run for, so that they do not stay for ever",
    cost: "two reads per connection that is there, once a minute, and more rarely while none is found",
    without: "where the kernel skips runs of a probe, memory for connections may fill up",
    requires: Some("tcp_destroy_sock"),
    unless: None,
    optional: false,
    methods: &[Method {
        counts: Program::GoneSockets,
        programs: &[(Program::GoneSockets.name(), Attachment::IterConnections)],
        offsets: &[
            SkReferences,
            SkRemoteAddress,
            SkRemotePort,
            SkState,
            SkLocalPort,
            InetLocalPort,
            TpTotalRetrans,
        ],
        also: Requirement::NOTHING,
    }],
};
