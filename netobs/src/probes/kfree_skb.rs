//! Packets dropped while a listener had them in hand.

use netobs_common::{
    offsets::Offset::{
        InetLocalPort, NetInum, ShinfoGsoSegs, SkAckBacklog, SkFamily, SkLocalAddress,
        SkLocalAddress6, SkLocalPort, SkMaxAckBacklog, SkNet, SkProtocol, SkState, SkbEnd, SkbHead,
        SkbNetworkHeader, SkbTransportHeader,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "kfree_skb",
    observes: "packets that a listener dropped, to tell listen drops from its other drops; SYNs that \
               a TIME_WAIT socket refused",
    cost: "once per dropped packet; one comparison unless a TCP listener had it",
    without: "listen drops by listener are a lower bound",
    requires: None,
    unless: None,
    optional: false,
    methods: &[Method {
        counts: Program::KfreeSkb,
        // The second runs behind the first, for what that one was not run for.
        programs: &[
            (Program::KfreeSkb.name(), TRACEPOINT),
            ("kfree_skb_again", TRACEPOINT),
        ],
        offsets: &[
            SkState,
            SkProtocol,
            SkNet,
            NetInum,
            SkFamily,
            SkLocalPort,
            InetLocalPort,
            SkLocalAddress,
            SkLocalAddress6,
            SkAckBacklog,
            SkMaxAckBacklog,
            SkbHead,
            SkbEnd,
            SkbNetworkHeader,
            SkbTransportHeader,
            ShinfoGsoSegs,
        ],
        also: Requirement::KFREE_SKB_NAMES_LISTENER,
    }],
};

const TRACEPOINT: Attachment = Attachment::TpBtf {
    tracepoint: "kfree_skb",
};
