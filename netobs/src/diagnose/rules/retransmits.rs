//! Data that is sent again: loss on the way, or one peer that is ill.

use std::{collections::BTreeMap, net::IpAddr};

use netobs_common::ledger::RetransmitType;

use super::{Rule, sees};
use crate::{
    audit::finding::Severity,
    diagnose::{Evidence, Finding, finding::count},
    ledger::stories::{Moment, What},
    sys::netstat::Counter,
};

pub(super) const RULE: Rule = Rule {
    id: "retransmits",
    looks_at: "data segments sent again, by type and by peer",
    sight: sees,
    judge,
};

/// Fewer segments than this within a window are what every network loses.
const FEW: u64 = 50;
/// So many of all segments sent (1 in 200, half a per cent) slow connections down to be felt.
const SHARE: u64 = 200;
/// A peer to which so many per cent go is the culprit.
const ONE_PEER: u64 = 80;

fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut sums: BTreeMap<u32, [u64; 6]> = BTreeMap::new();
    for (labels, values) in evidence.retransmits() {
        let sum = sums.entry(labels.owner.netns).or_default();
        for (sum, segments) in sum.iter_mut().zip(values.segments) {
            *sum += segments;
        }
    }
    sums.into_iter()
        .filter_map(|(netns, by_type)| judge_namespace(evidence, netns, by_type))
        .collect()
}

fn judge_namespace(evidence: &Evidence, netns: u32, by_type: [u64; 6]) -> Option<Finding> {
    let of = |kind: RetransmitType| by_type.get(kind as usize).copied().unwrap_or(0);
    let timeouts = of(RetransmitType::Timeout);
    let fast = of(RetransmitType::Fast);
    let probes = of(RetransmitType::TailLossProbe);
    let data = timeouts + fast + probes + of(RetransmitType::Other);
    let sent = evidence.moved(netns, Counter::OutSegs);
    if data < FEW || data < sent / SHARE {
        return None;
    }
    let peers = evidence.observed.peers().retransmits(netns);
    let seen: u64 = peers.iter().map(|(_, segments, _)| segments).sum();
    let summary = format!("{} sent again", count(data, "data segment"));
    let of_all = if evidence.knows_totals() {
        format!(" of {sent} segments sent")
    } else {
        String::new()
    };
    let other = of(RetransmitType::Other);
    let times = evidence.observed.retransmits(netns);
    let mut finding = Finding::new("retransmissions", Severity::Warning, summary)
        .in_namespace(netns)
        .events(data)
        .seen(format!(
            "{data}{of_all}: {timeouts} by timeout, {fast} by fast retransmit, {probes} as tail loss \
             probes, {other} otherwise"
        ))
        .seen_if(times.and_then(|times| evidence.when(times, "segments")));
    for (address, segments, timeouts) in peers.iter().take(3) {
        finding = finding.seen(format!(
            "{segments} to {address}, {timeouts} of them by timeout"
        ));
    }
    if let Some(more) = peers.len().checked_sub(3).filter(|more| *more > 0) {
        finding = finding.seen(format!("the rest to {}", count(more as u64, "more peer")));
    }
    let one = |finding: Finding, address: &IpAddr| {
        finding.mend(format!(
            "mtr -T {address}; the counters of that host's interfaces"
        ))
    };
    finding = match peers.as_slice() {
        [(address, ..)] => one(
            finding.because(format!(
                "all go to one peer, {address}: that host, or the way to it, is ill"
            )),
            address,
        ),
        [(address, most, _), ..] if most * 100 >= seen * ONE_PEER => one(
            finding.because(format!(
                "of {} peers one, {address}, has most of them: that host, or the way to it, is ill",
                peers.len()
            )),
            address,
        ),
        _ => finding
            .because(format!(
                "{} peers are concerned and none has most of it: loss on the path that they share, near \
                 this host, on its link or in its queues",
                peers.len()
            ))
            .mend("ip -s link; ethtool -S; tc -s qdisc: drops and errors of the interfaces here"),
    };
    if timeouts > data / 2 {
        finding = finding.because(
            "most are timeouts: whole windows or the last segments get lost, and each costs at least \
             200 ms",
        );
    }
    let data = |moment: &Moment| {
        matches!(moment.what, What::Retransmit { kind, .. }
            if kind != RetransmitType::Syn && kind != RetransmitType::SynAck)
    };
    Some(finding.told(evidence.told(|story| {
        (story.client.netns == netns || story.server.netns == netns)
            && story.moments.iter().any(data)
    })))
}
