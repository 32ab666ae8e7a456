//! SYN queues that are full, and what stands in for them.

use netobs_common::ledger::{Reason, Stage};

use super::{Rule, Sight};
use crate::{
    audit::finding::Severity,
    diagnose::{Evidence, Finding, Source, finding::count},
    sys::netstat::Counter,
};

pub(super) const RULE: Rule = Rule {
    id: "syn-queue",
    looks_at: "SYN queues: drops, SYN cookies sent and refused",
    sight,
    judge,
};

/// A cookie or two is what a port scan leaves behind.
const FEW: u64 = 10;

fn sight(evidence: &Evidence) -> Sight {
    match evidence.source {
        Source::Recorded => Sight::blind("a recording tells of drops, but not of SYN cookies"),
        Source::Watched => Sight::Full,
    }
}

fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (labels, now) in &evidence.after.listeners {
        let full = |counts: &netobs_common::ledger::ListenCounts| {
            counts.drops[Stage::Syn as usize][Reason::SynQueueFull as usize]
        };
        let before = evidence.before.listeners.get(labels);
        let dropped =
            full(&now.counts).saturating_sub(before.map_or(0, |before| full(&before.counts)));
        if dropped == 0 {
            continue;
        }
        let (address, port) = (labels.address, labels.port);
        let summary = format!("the SYN queue of {address} port {port} was full");
        findings.push(
            Finding::new("syn-queue-full", Severity::Critical, summary)
                .of(&labels.owner)
                .events(dropped)
                .seen(format!("{} dropped", count(dropped, "SYN")))
                .because("handshakes begin faster than clients end them: a flood, or answers that get lost")
                .because("SYN cookies are off, so what does not fit is dropped")
                .mend("in that network namespace: sysctl -w net.ipv4.tcp_syncookies=1")
                .mend("raise net.ipv4.tcp_max_syn_backlog and the listen() argument"),
        );
    }
    for netns in evidence.namespaces() {
        let sent = evidence.moved(netns, Counter::SyncookiesSent);
        let failed = evidence.moved(netns, Counter::SyncookiesFailed);
        if sent < FEW {
            continue;
        }
        let valid = evidence.moved(netns, Counter::SyncookiesRecv);
        findings.push(
            Finding::new(
                "syn-cookies",
                Severity::Warning,
                format!("{} sent: a SYN queue was full", count(sent, "SYN cookie")),
            )
            .in_namespace(netns)
            .events(sent)
            .seen(format!("{valid} came back valid, {failed} did not"))
            .because(if valid < sent / 2 {
                "most clients never answer: a SYN flood, or answers that get lost on the way"
            } else {
                "most clients are real: the queue is too short for what comes"
            })
            .mend("raise net.ipv4.tcp_max_syn_backlog and the listen() argument (the lesser binds)")
            .mend("see where from: netobs trace --netns, or the firewall's counters"),
        );
    }
    findings
}
