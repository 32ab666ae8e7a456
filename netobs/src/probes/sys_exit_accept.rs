//! Connections taken by accept(), by what the system call returned.

use netobs_common::{
    offsets::Offset::{
        FilePrivate, FilesTable, InetLocalPort, NetInum, SkFamily, SkLocalAddress, SkLocalAddress6,
        SkLocalPort, SkNet, SkProtocol, SkRemoteAddress, SkRemoteAddress6, SkRemotePort,
        SocketSock, TableEntries, TableSize, TaskFiles,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: super::ACCEPT_CALLS,
    observes: "connections that accept() takes from a queue, and how long they waited there, where \
               inet_csk_accept cannot be probed. Off in netobs run unless asked for: --probe \
               sys_exit_accept; on in diagnose, top and trace, which watch for a while",
    cost: "once per call of accept(); while it is attached, the kernel sends every system call of \
           every process a slower way (some 30 ns each)",
    without: "accepts and accept latency are not seen",
    requires: Some("inet_sock_set_state"),
    unless: Some("inet_csk_accept"),
    optional: false,
    methods: &[Method {
        counts: Program::SysExitAccept,
        programs: &[
            (
                "sys_exit_accept",
                Attachment::Tracepoint {
                    category: "syscalls",
                    name: "sys_exit_accept",
                },
            ),
            (
                "sys_exit_accept",
                Attachment::Tracepoint {
                    category: "syscalls",
                    name: "sys_exit_accept4",
                },
            ),
        ],
        offsets: &[
            TaskFiles,
            FilesTable,
            TableSize,
            TableEntries,
            FilePrivate,
            SocketSock,
            SkProtocol,
            SkNet,
            NetInum,
            SkFamily,
            SkLocalPort,
            InetLocalPort,
            SkRemotePort,
            SkLocalAddress,
            SkLocalAddress6,
            SkRemoteAddress,
            SkRemoteAddress6,
        ],
        also: Requirement::ACCEPT_RESULT,
    }],
};
