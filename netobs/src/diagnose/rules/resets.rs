//! Connections that end by reset: real ones, and what health checks leave behind.

use netobs_common::ledger::{Direction, ResetClass, Role};

use super::Rule;
use crate::{
    audit::finding::Severity,
    diagnose::{Evidence, Finding, finding::count},
    ledger::resets::ResetLabels,
};

pub(super) const RULE: Rule = Rule {
    id: "resets",
    looks_at: "resets of established connections, sent and received; health checks told apart",
    judge,
};

/// One reset is a client that went away. So many within a window are a pattern.
const FEW: u64 = 5;

fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (labels, resets) in evidence.resets() {
        if resets < FEW || labels.state == 0 {
            continue;
        }
        match (labels.direction, labels.class) {
            (Direction::Received, ResetClass::Connection) => {
                findings.extend(received(evidence, labels, resets));
            }
            (Direction::Sent, ResetClass::Abort) => findings.push(aborted(labels, resets)),
            (Direction::Sent, ResetClass::Handshake | ResetClass::Overflow) => {
                findings.push(handshake(labels, resets));
            }
            _ => {}
        }
    }
    findings
}

/// What a peer reset within a moment and without a byte is a health check: no harm, said so only
/// where there is more.
fn received(evidence: &Evidence, labels: &ResetLabels, resets: u64) -> Option<Finding> {
    let port = match labels.role {
        Role::Server => labels.port,
        Role::Client => 0,
    };
    let mut peers: Vec<_> = evidence
        .peers
        .of(labels.owner.netns, Some(port))
        .filter(|(_, peer)| peer.resets > 0)
        .collect();
    let checks: u64 = peers.iter().map(|(_, peer)| peer.empty_resets).sum();
    let real = resets.saturating_sub(checks);
    if real < FEW {
        return None;
    }
    peers.sort_by_key(|(_, peer)| std::cmp::Reverse(peer.resets - peer.empty_resets));
    let summary = format!(
        "peers reset {} of {} {}",
        count(real, "connection"),
        match labels.role {
            Role::Server => "the server on",
            Role::Client => "the client to",
        },
        match labels.port {
            0 => "high ports".to_owned(),
            port => format!("port {port}"),
        }
    );
    let mut finding = Finding::new("resets-received", Severity::Warning, summary)
        .of(&labels.owner)
        .events(real);
    for (address, peer) in peers.iter().take(3) {
        let real = peer.resets - peer.empty_resets;
        if real > 0 {
            finding = finding.seen(format!("{real} by {address}"));
        }
    }
    if checks > 0 {
        finding = finding.seen(format!(
            "{checks} more look like health checks (short, no byte sent) and are not counted here"
        ));
    }
    Some(
        finding
            .because("the peer gave the connection up: its own time limit, a crash, or a middlebox that forgot it")
            .mend("netobs trace reset shows each with its age and how long it had been idle: one idle time for all is a time limit")
            .mend("for idle connections: keep-alive shorter than the load balancer's or NAT's limit"),
    )
}

fn aborted(labels: &ResetLabels, resets: u64) -> Finding {
    let summary = format!("this host aborted {}", count(resets, "connection"));
    Finding::new("resets-sent", Severity::Info, summary)
        .of(&labels.owner)
        .events(resets)
        .seen(format!(
            "{resets} in state {}",
            netobs_common::kernel::state_name(labels.state)
        ))
        .because("the process closed with unread data or SO_LINGER 0, or a timer of the stack ended it")
        .mend("netobs trace reset shows the reason where the kernel gives one; read what has come before close()")
}

fn handshake(labels: &ResetLabels, resets: u64) -> Finding {
    let summary = format!(
        "{} answered by a reset on port {}",
        count(resets, "handshake"),
        labels.port
    );
    let because = if labels.class == ResetClass::Overflow {
        "net.ipv4.tcp_abort_on_overflow=1, and the accept queue was full"
    } else {
        "net.ipv4.tcp_abort_on_overflow=1 with a full accept queue, or ACKs that fit no handshake"
    };
    Finding::new("handshakes-reset", Severity::Warning, summary)
        .of(&labels.owner)
        .events(resets)
        .seen("resets of a listening socket")
        .because(because)
        .mend("sysctl net.ipv4.tcp_abort_on_overflow in that namespace should be 0; see accept-queue-overflow")
}
