//! Connections that enter and leave accept queues.

use netobs_common::{
    offsets::Offset::{
        self, InetLocalPort, NetInum, SkAckBacklog, SkFamily, SkLocalAddress, SkLocalAddress6,
        SkLocalPort, SkMaxAckBacklog, SkNet, SkProtocol, SkRemoteAddress, SkRemoteAddress6,
        SkRemotePort,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// Connections that enter.
pub(super) static ENQUEUE: Probe = Probe {
    name: "inet_csk_reqsk_queue_add",
    observes: "connections that enter an accept queue, how long and how full it then is",
    cost: "once per accepted connection",
    without: "accept queues are looked at ten times a second; shorter peaks show only as overflows",
    requires: None,
    unless: None,
    optional: true,
    methods: &[Method {
        counts: Program::AcceptEnqueue,
        programs: &[(
            "accept_enqueue",
            Attachment::Fexit {
                function: "inet_csk_reqsk_queue_add",
            },
        )],
        offsets: &[SkAckBacklog, SkMaxAckBacklog],
        also: Requirement::NOTHING,
    }],
};

/// Connections that leave.
pub(super) static DEQUEUE: Probe = Probe {
    name: "inet_csk_accept",
    observes: "connections that accept() takes from a queue",
    cost: "once per accepted connection",
    without: "accepts are counted, and waits measured, by the system calls of accept()",
    requires: None,
    unless: None,
    optional: true,
    methods: &[
        Method {
            counts: Program::AcceptDequeue,
            programs: &[("accept_dequeue", ACCEPT)],
            offsets: CONNECTION,
            also: Requirement::ACCEPT_2,
        },
        Method {
            counts: Program::AcceptDequeue,
            programs: &[("accept_dequeue_4", ACCEPT)],
            offsets: CONNECTION,
            also: Requirement::ACCEPT_4,
        },
    ],
};

/// What is read of an accepted connection.
const CONNECTION: &[Offset] = &[
    NetInum,
    SkNet,
    SkFamily,
    SkLocalPort,
    InetLocalPort,
    SkProtocol,
    SkRemotePort,
    SkLocalAddress,
    SkLocalAddress6,
    SkRemoteAddress,
    SkRemoteAddress6,
];

const ACCEPT: Attachment = Attachment::Fexit {
    function: "inet_csk_accept",
};
