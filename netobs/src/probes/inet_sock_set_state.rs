//! Listeners that come.

use netobs_common::{
    offsets::Offset::{
        InetLocalPort, NetInum, SkDrops, SkFamily, SkLocalAddress, SkLocalAddress6, SkLocalPort,
        SkMaxAckBacklog, SkNet, SkProtocol, SkRemoteAddress, SkRemoteAddress6, SkRemotePort,
        SkSocket, SocketAllocSocket, SocketInode, TpTotalRetrans,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "inet_sock_set_state",
    observes: "listen() calls, with who called, and sockets whose use ends",
    cost: "each TCP state change; two loads and a comparison for those of no interest",
    without: "listeners opened after netobs's start are not seen",
    requires: Some("tcp_destroy_sock"),
    optional: false,
    methods: &[Method {
        counts: Program::InetSockSetState,
        programs: &[(
            Program::InetSockSetState.name(),
            Attachment::TpBtf {
                tracepoint: "inet_sock_set_state",
            },
        )],
        offsets: &[
            SkProtocol,
            SkNet,
            NetInum,
            SkFamily,
            SkLocalPort,
            SkMaxAckBacklog,
            SkRemotePort,
            SkLocalAddress,
            SkLocalAddress6,
            SkRemoteAddress,
            SkRemoteAddress6,
            SkDrops,
            SkSocket,
            SocketAllocSocket,
            SocketInode,
            TpTotalRetrans,
            InetLocalPort,
        ],
        also: Requirement::NOTHING,
    }],
};
