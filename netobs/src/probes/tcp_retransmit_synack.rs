//! Retransmitted SYN-ACKs.

use netobs_common::{
    offsets::Offset::{
        InetLocalPort, NetInum, RskNumRetrans, RskRemoteAddress, RskRemoteAddress6, RskRemotePort,
        SkFamily, SkLocalAddress, SkLocalAddress6, SkLocalPort, SkNet, SkRemoteAddress,
        SkRemoteAddress6, SkRemotePort, SkState, TpTotalRetrans,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "tcp_retransmit_synack",
    observes: "SYN-ACKs sent again, by listener",
    cost: "once per retransmitted SYN-ACK",
    without: "retransmitted SYN-ACKs are not attributed",
    requires: None,
    unless: None,
    optional: false,
    methods: &[
        Method {
            counts: Program::TcpRetransmitSynack,
            programs: &[(
                Program::TcpRetransmitSynack.name(),
                Attachment::TpBtf {
                    tracepoint: "tcp_retransmit_synack",
                },
            )],
            offsets: &[
                SkNet,
                NetInum,
                SkFamily,
                SkState,
                SkLocalPort,
                SkRemotePort,
                SkLocalAddress,
                SkLocalAddress6,
                SkRemoteAddress,
                SkRemoteAddress6,
                TpTotalRetrans,
                InetLocalPort,
                RskNumRetrans,
                RskRemotePort,
                RskRemoteAddress,
                RskRemoteAddress6,
            ],
            also: Requirement::NOTHING,
        },
        Method {
            counts: Program::TcpRetransmitSynackClassic,
            programs: &[(
                Program::TcpRetransmitSynackClassic.name(),
                Attachment::Tracepoint {
                    category: "tcp",
                    name: "tcp_retransmit_synack",
                },
            )],
            offsets: &[],
            also: Requirement::CLASSIC_RECORDS,
        },
    ],
};
