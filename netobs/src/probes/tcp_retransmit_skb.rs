//! Retransmitted data and SYN segments.

use netobs_common::{
    offsets::Offset::{
        self, CbFlags, CbGsoSegs, IcskCaState, IcskPending, IcskRetransmits, InetLocalPort,
        NetInum, SkFamily, SkLocalAddress, SkLocalAddress6, SkLocalPort, SkNet, SkRemoteAddress,
        SkRemoteAddress6, SkRemotePort, SkState, SkbCb, TpBytesAcked, TpBytesReceived, TpSndCwnd,
        TpSrtt, TpTotalRetrans,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

const TRACEPOINT: (&str, Attachment) = (
    Program::TcpRetransmitSkb.name(),
    Attachment::TpBtf {
        tracepoint: "tcp_retransmit_skb",
    },
);

const OFFSETS: &[Offset] = &[
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
    IcskCaState,
    IcskPending,
    IcskRetransmits,
    TpTotalRetrans,
    InetLocalPort,
    TpSrtt,
    TpSndCwnd,
    TpBytesAcked,
    TpBytesReceived,
    SkbCb,
    CbGsoSegs,
    CbFlags,
];

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "tcp_retransmit_skb",
    observes: "segments sent again: data, SYNs, tail loss probes, and attempts that failed",
    cost: "once per retransmission",
    without: "retransmissions are not attributed; see netobs_netstat_total for the sums",
    requires: None,
    unless: None,
    optional: false,
    methods: &[
        Method {
            counts: Program::TcpRetransmitSkb,
            programs: &[TRACEPOINT],
            offsets: OFFSETS,
            also: Requirement::NOTHING,
        },
        Method {
            counts: Program::TcpRetransmitSkbClassic,
            programs: &[(
                Program::TcpRetransmitSkbClassic.name(),
                Attachment::Tracepoint {
                    category: "tcp",
                    name: "tcp_retransmit_skb",
                },
            )],
            offsets: &[],
            also: Requirement::CLASSIC_RECORDS,
        },
    ],
};
