//! SYNs that a TIME_WAIT socket of an earlier connection does not let through to the listener.

use netobs_common::{
    offsets::Offset::{
        self, NetInum, SkFamily, SkLocalAddress, SkLocalAddress6, SkLocalPort, SkNet, SkbHead,
        SkbTransportHeader,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

const OFFSETS: &[Offset] = &[
    SkNet,
    NetInum,
    SkFamily,
    SkLocalPort,
    SkLocalAddress,
    SkLocalAddress6,
    SkbHead,
    SkbTransportHeader,
];

const FUNCTION: Attachment = Attachment::Fexit {
    function: "tcp_timewait_state_process",
};

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "tcp_timewait_state_process",
    observes: "SYNs that a TIME_WAIT socket of an earlier connection did not let through",
    cost: "once per packet for a TIME_WAIT socket",
    without: "SYNs that TIME_WAIT sockets refuse show in the namespace's counters only",
    requires: Some("inet_sock_set_state"),
    unless: Some("kfree_skb"),
    optional: true,
    methods: &[
        Method {
            counts: Program::TimeWait,
            programs: &[("time_wait_3", FUNCTION)],
            offsets: OFFSETS,
            also: Requirement::TIME_WAIT_3,
        },
        Method {
            counts: Program::TimeWait,
            programs: &[("time_wait_4", FUNCTION)],
            offsets: OFFSETS,
            also: Requirement::TIME_WAIT_4,
        },
        Method {
            counts: Program::TimeWait,
            programs: &[("time_wait_5", FUNCTION)],
            offsets: OFFSETS,
            also: Requirement::TIME_WAIT_5,
        },
    ],
};
