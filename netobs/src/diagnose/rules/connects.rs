//! Outgoing connections that fail, or take a second and more because a SYN was lost.

use netobs_common::connection::ConnectFailure;

use super::{Rule, time};
use crate::{
    audit::finding::Severity,
    diagnose::{Evidence, Finding, evidence::above, finding::count},
    ledger::connects::{ConnectLabels, ConnectValues},
};

pub(super) const RULE: Rule = Rule {
    id: "connects",
    looks_at: "outgoing connections: refused, timed out, abandoned, slow by lost SYNs, no local port",
    judge,
};

/// One failure is an accident. Three within a window are not.
const FEW: u64 = 3;
/// A failure per so many attempts is what a deployment under way leaves behind.
const RARE_SHARE: u64 = 100;
/// The first SYN is sent again after 1 s (RFC 6298, 2.1): a handshake that takes half of that has
/// not lost one, one that takes longer than the bound below has.
const SYN_LOST_NS: u64 = 500_000_000;

fn judge(evidence: &Evidence) -> Vec<Finding> {
    evidence
        .connects()
        .flat_map(|(labels, values)| {
            let verdicts = [
                unanswered(labels, &values),
                slow(labels, &values),
                refused(labels, &values),
                unreachable(labels, &values),
                not_sent(labels, &values),
            ];
            verdicts.into_iter().flatten()
        })
        .collect()
}

fn of(values: &ConnectValues, failure: ConnectFailure) -> u64 {
    values.failures[failure as usize]
}

fn is_much(failures: u64, attempts: u64) -> bool {
    failures >= FEW && failures > attempts / RARE_SHARE
}

fn target(labels: &ConnectLabels) -> String {
    match labels.port {
        0 => "high ports".to_owned(),
        port => format!("port {port}"),
    }
}

fn unanswered(labels: &ConnectLabels, values: &ConnectValues) -> Option<Finding> {
    let timed_out = of(values, ConnectFailure::TimedOut);
    let abandoned = of(values, ConnectFailure::Abandoned);
    let failed = timed_out + abandoned;
    if !is_much(failed, values.begun) {
        return None;
    }
    let target = target(labels);
    let summary = format!("{} to {target} never answered", count(failed, "connect"));
    Some(
        Finding::new("connect-timeout", Severity::Critical, summary)
            .of(&labels.owner)
            .events(failed)
            .seen(format!(
                "of {} begun, {timed_out} timed out and {abandoned} were closed by the process while \
                 the SYN was unanswered; {} wait now",
                values.begun,
                values.waiting()
            ))
            .because("SYNs leave and nothing comes back: no answer, no refusal")
            .because("a firewall that drops, a dead host, a lost route back, or a peer whose accept queue is full")
            .mend(format!("on the peer: netobs diagnose, or ss -ltn for a full queue on {target}"))
            .mend("on the way: the firewall's drop counters (nft list ruleset, iptables -nvL), mtr -T"),
    )
}

fn slow(labels: &ConnectLabels, values: &ConnectValues) -> Option<Finding> {
    let slow = above(&values.latency, SYN_LOST_NS);
    let completed = values.latency.count();
    if !is_much(slow, completed) {
        return None;
    }
    let target = target(labels);
    let mean = values.latency.sum_ns.checked_div(completed).unwrap_or(0);
    let summary = format!(
        "{} to {target} took longer than half a second: SYNs or SYN-ACKs get lost",
        count(slow, "connect")
    );
    Some(
        Finding::new("connect-slow", Severity::Warning, summary)
            .of(&labels.owner)
            .events(slow)
            .seen(format!(
                "{slow} of {completed} completed late, {} on average; a SYN is sent again after 1, 3 \
                 and 7 s",
                time(mean)
            ))
            .because("the first SYN of these was not answered, a later one was")
            .because("loss on the way, or a peer whose accept or SYN queue is full now and then")
            .mend(format!("on the peer: netobs diagnose, or ss -ltn for a full queue on {target}"))
            .mend("on the way: loss by mtr -T, drops of the interfaces by ip -s link"),
    )
}

fn refused(labels: &ConnectLabels, values: &ConnectValues) -> Option<Finding> {
    let refused = of(values, ConnectFailure::Refused) + of(values, ConnectFailure::Reset);
    if !is_much(refused, values.begun) {
        return None;
    }
    let target = target(labels);
    let summary = format!("{} to {target} refused", count(refused, "connect"));
    Some(
        Finding::new("connect-refused", Severity::Warning, summary)
            .of(&labels.owner)
            .events(refused)
            .seen(format!("{refused} of {} begun", values.begun))
            .because("the host answers that nothing listens there, or a firewall rejects")
            .mend("is the server running, and on that address? ss -ltnp there")
            .mend("is the address right? what the client resolves and is configured with"),
    )
}

fn unreachable(labels: &ConnectLabels, values: &ConnectValues) -> Option<Finding> {
    let host = of(values, ConnectFailure::HostUnreachable);
    let net = of(values, ConnectFailure::NetUnreachable);
    if !is_much(host + net, values.begun) {
        return None;
    }
    let target = target(labels);
    let summary = format!(
        "{} to {target} had no way there",
        count(host + net, "connect")
    );
    Some(
        Finding::new("connect-unreachable", Severity::Critical, summary)
            .of(&labels.owner)
            .events(host + net)
            .seen(format!("host unreachable {host}, network unreachable {net}"))
            .because("a router or this host says that there is no way: a route, a neighbour or a host is missing")
            .mend("in that network namespace: ip route get ADDRESS; ip neigh")
    )
}

fn not_sent(labels: &ConnectLabels, values: &ConnectValues) -> Option<Finding> {
    let failed = of(values, ConnectFailure::NotSent);
    if failed < FEW {
        return None;
    }
    let target = target(labels);
    let summary = format!(
        "{} to {target} could not even be sent: no free local port",
        count(failed, "connect")
    );
    Some(
        Finding::new("local-ports-exhausted", Severity::Critical, summary)
            .of(&labels.owner)
            .events(failed)
            .seen(format!("{failed} of {} begun failed with EADDRNOTAVAIL", values.begun))
            .because("every port of net.ipv4.ip_local_port_range towards that address is taken, many by TIME_WAIT")
            .mend("reuse connections (keep-alive, a pool): the range bounds how many may be opened a minute")
            .mend("in that network namespace: ss -tan state time-wait | wc -l; widen net.ipv4.ip_local_port_range")
    )
}
