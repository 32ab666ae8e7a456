//! Data that is sent again: loss on the way, or one peer that is ill.

use std::collections::BTreeMap;

use netobs_common::ledger::RetransmitType;

use super::Rule;
use crate::{
    audit::finding::Severity,
    diagnose::{Evidence, Finding, finding::count},
    sys::netstat::Counter,
};

pub(super) const RULE: Rule = Rule {
    id: "retransmits",
    looks_at: "data segments sent again, by type and by peer",
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
    let of = |kind: RetransmitType| by_type[kind as usize];
    let timeouts = of(RetransmitType::Timeout);
    let fast = of(RetransmitType::Fast);
    let probes = of(RetransmitType::TailLossProbe);
    let data = timeouts + fast + probes + of(RetransmitType::Other);
    let sent = evidence.moved(netns, Counter::OutSegs);
    if data < FEW || data < sent / SHARE {
        return None;
    }
    let mut peers: Vec<_> = evidence
        .peers
        .of(netns, None)
        .filter(|(_, peer)| peer.retransmitted > 0)
        .collect();
    peers.sort_by_key(|(_, peer)| std::cmp::Reverse(peer.retransmitted));
    let seen: u64 = peers.iter().map(|(_, peer)| peer.retransmitted).sum();
    let summary = format!("{} sent again", count(data, "data segment"));
    let mut finding = Finding::new("retransmissions", Severity::Warning, summary)
        .in_namespace(netns)
        .events(data)
        .seen(format!(
            "{data} of {sent} segments sent: {timeouts} by timeout, {fast} by fast retransmit, \
             {probes} as tail loss probes"
        ));
    for (address, peer) in peers.iter().take(3) {
        finding = finding.seen(format!(
            "{} to {address}, {} of them by timeout",
            peer.retransmitted, peer.timeouts
        ));
    }
    finding = match peers.first() {
        Some((address, worst))
            if worst.retransmitted * 100 >= seen * ONE_PEER && peers.len() > 1 =>
        {
            finding
                .because(format!(
                    "one peer, {address}, has most of them: that host, or the way to it, is ill"
                ))
                .mend(format!(
                    "mtr -T {address}; the counters of that host's interfaces"
                ))
        }
        Some((address, _)) if peers.len() == 1 => finding
            .because(format!("all go to one peer, {address}"))
            .mend(format!(
                "mtr -T {address}; the counters of that host's interfaces"
            )),
        _ => finding
            .because("many peers are concerned: loss near this host, on its link or in its queues")
            .mend("ip -s link; ethtool -S; tc -s qdisc: drops and errors of the interfaces here"),
    };
    if timeouts > data / 2 {
        finding = finding.because(
            "most are timeouts: whole windows or the last segments get lost, and each costs at least \
             200 ms",
        );
    }
    Some(finding)
}
