//! Connections that enter and leave accept queues.

use netobs_common::{offsets::Offset::SkAckBacklog, probe::Program};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// Connections that enter.
pub(super) static ENQUEUE: Probe = Probe {
    name: "inet_csk_reqsk_queue_add",
    observes: "connections that enter an accept queue, and how long it then is",
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
        offsets: &[SkAckBacklog],
        also: Requirement::NOTHING,
    }],
};

/// Connections that leave.
pub(super) static DEQUEUE: Probe = Probe {
    name: "inet_csk_accept",
    observes: "connections that accept() takes from a queue",
    cost: "once per accepted connection",
    without: "accepts are not counted",
    requires: None,
    unless: None,
    optional: true,
    methods: &[
        Method {
            counts: Program::AcceptDequeue,
            programs: &[("accept_dequeue", ACCEPT)],
            offsets: &[],
            also: Requirement::ACCEPT_2,
        },
        Method {
            counts: Program::AcceptDequeue,
            programs: &[("accept_dequeue_4", ACCEPT)],
            offsets: &[],
            also: Requirement::ACCEPT_4,
        },
    ],
};

const ACCEPT: Attachment = Attachment::Fexit {
    function: "inet_csk_accept",
};
