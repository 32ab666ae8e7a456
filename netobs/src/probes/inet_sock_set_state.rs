//! Outgoing handshakes, connections that enter accept queues, and listeners that come.

use netobs_common::{
    offsets::Offset::{
        InetLocalPort, NetInum, SkAckBacklog, SkDrops, SkErr, SkFamily, SkLocalAddress,
        SkLocalAddress6, SkLocalPort, SkMaxAckBacklog, SkNet, SkProtocol, SkRemoteAddress,
        SkRemoteAddress6, SkRemotePort, SkSocket, SkState, SocketAllocSocket, SocketInode,
        TpSegsOut, TpTotalRetrans,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "inet_sock_set_state",
    observes: "connect() and listen() calls, with who called, how handshakes end, and sockets whose \
               use ends",
    cost: "each TCP state change; a connection is remembered from its handshake to its end",
    without: "outgoing connections, and listeners opened after netobs's start, are not seen",
    requires: Some("tcp_destroy_sock"),
    unless: None,
    optional: false,
    methods: &[Method {
        counts: Program::InetSockSetState,
        // The second runs behind the first, for what that one was not run for.
        programs: &[
            (Program::InetSockSetState.name(), TRACEPOINT),
            ("set_state_again", TRACEPOINT),
        ],
        offsets: &[
            SkState,
            SkProtocol,
            SkNet,
            NetInum,
            SkFamily,
            SkLocalPort,
            SkAckBacklog,
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
            TpSegsOut,
            SkErr,
            InetLocalPort,
        ],
        also: Requirement::NOTHING,
    }],
};

const TRACEPOINT: Attachment = Attachment::TpBtf {
    tracepoint: "inet_sock_set_state",
};
