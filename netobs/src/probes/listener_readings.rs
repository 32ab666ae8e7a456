//! Readings of every known listener.

use netobs_common::{
    offsets::Offset::{IcskQueueLength, SkAckBacklog, SkDrops, SkMaxAckBacklog, SkState},
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "listener_readings",
    observes: "each listener's drops, accept queue and SYN queue, ten times a second",
    cost: "a few reads per listener and look; nothing in between",
    without: "listen drops and accept queues are not seen",
    requires: Some("tcp_destroy_sock"),
    unless: None,
    optional: false,
    methods: &[Method {
        counts: Program::ListenerReadings,
        programs: &[(Program::ListenerReadings.name(), Attachment::IterListeners)],
        offsets: &[
            SkDrops,
            SkAckBacklog,
            SkMaxAckBacklog,
            IcskQueueLength,
            SkState,
        ],
        also: Requirement::NOTHING,
    }],
};
