//! Packets dropped while a listener had them in hand.

use netobs_common::{
    offsets::Offset::{
        NetInum, ShinfoGsoSegs, SkAckBacklog, SkLocalPort, SkMaxAckBacklog, SkNet, SkProtocol,
        SkState, SkbEnd, SkbHead,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "kfree_skb",
    observes: "packets that a listener dropped, to tell listen drops from its other drops",
    cost: "once per dropped packet; one comparison unless a TCP listener had it",
    without: "listen drops by listener are a lower bound",
    requires: None,
    unless: None,
    optional: false,
    methods: &[Method {
        counts: Program::KfreeSkb,
        programs: &[(
            Program::KfreeSkb.name(),
            Attachment::TpBtf {
                tracepoint: "kfree_skb",
            },
        )],
        offsets: &[
            SkState,
            SkProtocol,
            SkNet,
            NetInum,
            SkLocalPort,
            SkAckBacklog,
            SkMaxAckBacklog,
            SkbHead,
            SkbEnd,
            ShinfoGsoSegs,
        ],
        also: Requirement::KFREE_SKB_NAMES_LISTENER,
    }],
};
