//! Outgoing connections that fail, or take a second and more because a SYN was lost.

use netobs_common::{
    connection::ConnectFailure,
    ledger::{RetransmitType, Role},
};

use super::{Rule, sees, time};
use crate::{
    audit::finding::Severity,
    diagnose::{
        Evidence, Finding, Place,
        evidence::{above, between},
        finding::count,
    },
    ledger::{
        connects::{ConnectLabels, ConnectValues},
        stories::{Moment, Story, What},
    },
};

pub(super) const RULE: Rule = Rule {
    id: "connects",
    looks_at: "outgoing connections: refused, timed out, abandoned, slow by lost SYNs, no local port",
    sight: sees,
    judge,
};

/// One failure is an accident. Three within a window are not.
const FEW: u64 = 3;
/// The latency histogram's bounds around the times at which a SYN is sent again: 1 s, 3 s and 7 s by
/// doubling; since 6.5 each second at first (`tcp_syn_linear_timeouts`), which fall into the same steps.
const STEPS: [(&str, u64, u64); 4] = [
    ("about 1 s", SYN_LOST_NS, 1_500_000_000),
    ("2 to 3 s", 1_500_000_000, 3_500_000_000),
    ("4 to 7 s", 3_500_000_000, 7_500_000_000),
    ("longer", 7_500_000_000, u64::MAX),
];
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
                unanswered(evidence, labels, &values),
                slow(evidence, labels, &values),
                refused(evidence, labels, &values),
                unreachable(evidence, labels, &values),
                not_sent(evidence, labels, &values),
            ];
            verdicts.into_iter().flatten()
        })
        .collect()
}

fn of(values: &ConnectValues, failure: ConnectFailure) -> u64 {
    values.failures.get(failure as usize).copied().unwrap_or(0)
}

/// Enough, and no small share; of a recording, which has no others, enough.
fn is_much(evidence: &Evidence, failures: u64, attempts: u64) -> bool {
    failures >= FEW && (failures > attempts / RARE_SHARE || !evidence.knows_totals())
}

fn of_begun(evidence: &Evidence, values: &ConnectValues) -> String {
    if evidence.knows_totals() {
        format!(" of {} begun", values.begun)
    } else {
        String::new()
    }
}

fn target(labels: &ConnectLabels) -> String {
    match labels.port {
        0 => "high ports".to_owned(),
        port => format!("port {port}"),
    }
}

/// Stories of these connections in which something like this happened to the client.
fn told(
    evidence: &Evidence,
    labels: &ConnectLabels,
    wanted: impl Fn(&What) -> bool,
) -> Vec<String> {
    evidence.told(|story| {
        is_of(story, labels) && story.moments.iter().any(|it: &Moment| wanted(&it.what))
    })
}

fn is_of(story: &Story, labels: &ConnectLabels) -> bool {
    story.client.netns == labels.owner.netns
        && story.client.process == labels.owner.process
        && (labels.port == 0 || story.server.address.port() == labels.port)
}

/// To whom handshakes had to be repeated, of the whole namespace.
fn whereto(mut finding: Finding, evidence: &Evidence, netns: u32) -> Finding {
    let peers = evidence.observed.peers().handshakes(netns);
    let all: u64 = peers.iter().map(|(_, count, _)| count).sum();
    if all == 0 {
        return finding;
    }
    let told: Vec<String> = peers
        .iter()
        .take(3)
        .map(|(address, count, _)| format!("{count} to {address}"))
        .collect();
    let others = match peers.len().saturating_sub(3) {
        0 => String::new(),
        more => format!(" and to {more} more"),
    };
    finding = finding.seen(format!(
        "SYNs and SYN-ACKs sent again in this network namespace: {all}, {}{others}",
        told.join(", ")
    ));
    match peers.as_slice() {
        [(address, ..)] => finding.because(format!("one peer only: {address}")),
        [_, _, ..] => finding.because(format!(
            "{} peers: more likely something near this host",
            peers.len()
        )),
        [] => finding,
    }
}

/// Connects that wait at the end of the window although SYNs were sent again: by default the kernel
/// gives up after two minutes only.
fn hanging(evidence: &Evidence, labels: &ConnectLabels) -> u64 {
    let now = evidence.after.connects.get(labels);
    let waiting = now.map_or(0, ConnectValues::waiting);
    let again: u64 = evidence
        .retransmits()
        .filter(|(of, _)| {
            of.role == Role::Client && of.owner == labels.owner && of.port == labels.port
        })
        .filter_map(|(_, values)| values.segments.get(RetransmitType::Syn as usize).copied())
        .sum();
    waiting.min(again)
}

/// Where the listener is on this host, what it did when SYNs came.
fn at_the_listener(finding: Finding, evidence: &Evidence, labels: &ConnectLabels) -> Finding {
    let stories = evidence.stories.iter().filter(|story| is_of(story, labels));
    let full = stories
        .filter(|story| story.unanswered.queue_full > 0)
        .count();
    match full {
        0 => finding,
        full => finding.because(format!(
            "the listener is on this host, and its accept queue was full when {full} of these sent a \
             SYN: see accept-queue-overflow"
        )),
    }
}

fn unanswered(
    evidence: &Evidence,
    labels: &ConnectLabels,
    values: &ConnectValues,
) -> Option<Finding> {
    let timed_out = of(values, ConnectFailure::TimedOut);
    let owner = &labels.owner;
    let hasty = evidence
        .observed
        .hasty(owner.netns, owner.process, labels.port);
    let abandoned = of(values, ConnectFailure::Abandoned).saturating_sub(hasty);
    let hanging = hanging(evidence, labels);
    let failed = timed_out + abandoned + hanging;
    if !is_much(evidence, failed, values.begun) {
        return None;
    }
    let target = target(labels);
    let summary = format!("{} to {target} got no answer", count(failed, "connect"));
    let waiting = if hanging > 0 {
        format!(", {hanging} still wait after their SYN was sent again")
    } else {
        String::new()
    };
    let finding = Finding::new("connect-timeout", Severity::Critical, summary)
        .of(&labels.owner)
        .events(failed)
        .seen(format!(
            "{failed}{}: {timed_out} timed out, {abandoned} were closed by the process while the SYN was \
             unanswered{waiting}",
            of_begun(evidence, values)
        ))
        .because("SYNs leave and nothing comes back: no answer, no refusal");
    let silent = |what: &What| {
        matches!(
            what,
            What::ConnectFailed {
                failure: ConnectFailure::TimedOut,
                ..
            } | What::ConnectFailed {
                failure: ConnectFailure::Abandoned,
                latency_ns: SYN_LOST_NS..,
                ..
            }
        )
    };
    Some(
        at_the_listener(whereto(finding, evidence, labels.owner.netns), evidence, labels)
            .because("a firewall that drops, a dead host, a lost route back, or a peer whose accept queue is full")
            .mend(format!("on the peer: netobs diagnose, or ss -ltn for a full queue on {target}"))
            .mend("on the way: the firewall's drop counters (nft list ruleset, iptables -nvL), mtr -T")
            .told(told(evidence, labels, silent)),
    )
}

fn slow(evidence: &Evidence, labels: &ConnectLabels, values: &ConnectValues) -> Option<Finding> {
    let slow = above(&values.latency, SYN_LOST_NS);
    let completed = values.latency.count();
    if !is_much(evidence, slow, completed) {
        return None;
    }
    let target = target(labels);
    let mean = values.latency.sum_ns.checked_div(completed).unwrap_or(0);
    let summary = format!(
        "{} to {target} took longer than half a second: SYNs or SYN-ACKs get lost",
        count(slow, "connect")
    );
    let steps: Vec<String> = STEPS
        .iter()
        .map(|(name, from, to)| (name, between(&values.latency, *from, *to)))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} took {name}"))
        .collect();
    let of_all = if evidence.knows_totals() {
        format!(
            " of {completed} that completed were late; on average of all {}",
            time(mean)
        )
    } else {
        " were late".to_owned()
    };
    let finding = Finding::new("connect-slow", Severity::Warning, summary)
        .of(&labels.owner)
        .events(slow)
        .seen(format!("{slow}{of_all}"))
        .seen(format!(
            "{}: the times at which a SYN is sent again",
            steps.join(", ")
        ))
        .because("the first SYN of these was not answered, a later one was");
    let late = |what: &What| matches!(what, What::Connected { syn_retransmits, .. } if *syn_retransmits > 0);
    Some(
        at_the_listener(
            whereto(finding, evidence, labels.owner.netns),
            evidence,
            labels,
        )
        .because("loss on the way, or a peer whose accept or SYN queue is full now and then")
        .mend(format!(
            "on the peer: netobs diagnose, or ss -ltn for a full queue on {target}"
        ))
        .mend("on the way: loss by mtr -T, drops of the interfaces by ip -s link")
        .told(told(evidence, labels, late)),
    )
}

fn refused(evidence: &Evidence, labels: &ConnectLabels, values: &ConnectValues) -> Option<Finding> {
    let refused = of(values, ConnectFailure::Refused) + of(values, ConnectFailure::Reset);
    if !is_much(evidence, refused, values.begun) {
        return None;
    }
    let target = target(labels);
    let summary = format!("{} to {target} refused", count(refused, "connect"));
    let answered = |what: &What| {
        matches!(
            what,
            What::ConnectFailed {
                failure: ConnectFailure::Refused | ConnectFailure::Reset,
                ..
            }
        )
    };
    Some(
        Finding::new("connect-refused", Severity::Warning, summary)
            .of(&labels.owner)
            .events(refused)
            .seen(format!(
                "{refused}{} were refused",
                of_begun(evidence, values)
            ))
            .because("the host answers that nothing listens there, or a firewall rejects")
            .mend("is the server running, and on that address? ss -ltnp there")
            .mend("is the address right? what the client resolves and is configured with")
            .told(told(evidence, labels, answered)),
    )
}

fn unreachable(
    evidence: &Evidence,
    labels: &ConnectLabels,
    values: &ConnectValues,
) -> Option<Finding> {
    let host = of(values, ConnectFailure::HostUnreachable);
    let net = of(values, ConnectFailure::NetUnreachable);
    if !is_much(evidence, host + net, values.begun) {
        return None;
    }
    let target = target(labels);
    let summary = format!(
        "{} to {target} had no way there",
        count(host + net, "connect")
    );
    let no_way = |what: &What| {
        matches!(
            what,
            What::ConnectFailed {
                failure: ConnectFailure::HostUnreachable | ConnectFailure::NetUnreachable,
                ..
            }
        )
    };
    Some(
        Finding::new("connect-unreachable", Severity::Critical, summary)
            .of(&labels.owner)
            .events(host + net)
            .seen(format!("host unreachable {host}, network unreachable {net}"))
            .because("a router or this host says that there is no way: a route, a neighbour or a host is missing")
            .mend("in that network namespace: ip route get ADDRESS; ip neigh")
            .told(told(evidence, labels, no_way)),
    )
}

fn not_sent(
    evidence: &Evidence,
    labels: &ConnectLabels,
    values: &ConnectValues,
) -> Option<Finding> {
    let failed = of(values, ConnectFailure::NotSent);
    if failed < FEW {
        return None;
    }
    let target = target(labels);
    let summary = format!(
        "{} to {target} could not even be sent: no free local port",
        count(failed, "connect")
    );
    let place = evidence.places.get(&labels.owner.netns);
    let mut finding = Finding::new("local-ports-exhausted", Severity::Critical, summary)
        .of(&labels.owner)
        .events(failed)
        .seen(format!(
            "{failed}{} failed at once, with EADDRNOTAVAIL",
            of_begun(evidence, values)
        ))
        .seen_if(place.and_then(ports_in_use))
        .because("every port of net.ipv4.ip_local_port_range towards that address is taken");
    if let Some(waiting) = place.and_then(|place| place.time_wait)
        && waiting > 0
    {
        finding = finding.because(format!(
            "{} hold theirs for a minute after they have ended (TIME_WAIT)",
            count(waiting, "connection")
        ));
    }
    finding = finding.mend(
        "reuse connections (keep-alive, a pool): the range bounds how many may be opened a minute",
    );
    if let Some(Place {
        reuse: Some(reuse), ..
    }) = place
        && *reuse != 1
    {
        finding = finding.mend(format!(
            "in that network namespace: sysctl -w net.ipv4.tcp_tw_reuse=1 (now {reuse}; needs time \
             stamps): a port in TIME_WAIT is used again after a second"
        ));
    }
    Some(finding.mend("in that network namespace: sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\" (ports that servers need: net.ipv4.ip_local_reserved_ports)"))
}

/// The range, and what is known to be in it.
fn ports_in_use(place: &Place) -> Option<String> {
    let (low, high) = place.ports?;
    let range = u32::from(high.saturating_sub(low)) + 1;
    let waiting = place
        .time_wait
        .map(|waiting| format!("; {waiting} sockets in TIME_WAIT"));
    Some(format!(
        "net.ipv4.ip_local_port_range {low} to {high}, {} towards one address and port{}",
        count(range.into(), "port"),
        waiting.unwrap_or_default()
    ))
}
