//! Sockets that are older than netobs.

use netobs_common::{
    offsets::Offset::{
        InetLocalPort, NetInum, SkDrops, SkFamily, SkLocalAddress, SkLocalAddress6, SkLocalPort,
        SkMaxAckBacklog, SkNet, SkRemoteAddress, SkRemoteAddress6, SkRemotePort, SkSocket, SkState,
        SocketAllocSocket, SocketInode, TpTotalRetrans,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "existing_sockets",
    observes: "listeners and retransmitting sockets that are older than netobs",
    cost: "once per socket, at start and when a namespace turns up",
    without: "listeners that are older than netobs are not seen",
    requires: Some("tcp_destroy_sock"),
    unless: None,
    optional: false,
    methods: &[Method {
        counts: Program::ExistingSockets,
        programs: &[(Program::ExistingSockets.name(), Attachment::IterTcp)],
        offsets: &[
            SkState,
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
