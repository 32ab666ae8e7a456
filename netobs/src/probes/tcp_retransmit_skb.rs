//! Retransmitted data and SYN segments.

use netobs_common::{
    offsets::Offset::{
        CbFlags, CbGsoSegs, IcskCaState, IcskPending, IcskRetransmits, NetInum, SkFamily,
        SkLocalAddress, SkLocalAddress6, SkLocalPort, SkNet, SkRemoteAddress, SkRemoteAddress6,
        SkRemotePort, SkState, SkbCb, TpSndCwnd, TpSrtt, TpTotalRetrans,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "tcp_retransmit_skb",
    observes: "segments sent again: data, SYNs, tail loss probes, and attempts that failed",
    cost: "once per retransmission",
    without: "retransmissions are not attributed; see netobs_netstat_total for the sums",
    methods: &[
        Method {
            program: Program::TcpRetransmitSkb,
            attachment: Attachment::TpBtf {
                tracepoint: "tcp_retransmit_skb",
            },
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
                IcskCaState,
                IcskPending,
                IcskRetransmits,
                TpTotalRetrans,
                TpSrtt,
                TpSndCwnd,
                SkbCb,
                CbGsoSegs,
                CbFlags,
            ],
            also: Requirement::NOTHING,
        },
        Method {
            program: Program::TcpRetransmitSkbClassic,
            attachment: Attachment::Tracepoint {
                category: "tcp",
                name: "tcp_retransmit_skb",
            },
            offsets: &[],
            also: Requirement::CLASSIC_RECORDS,
        },
    ],
};
