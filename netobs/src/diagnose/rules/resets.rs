//! Connections that end by reset: real ones, and what health checks leave behind.

use std::{collections::BTreeMap, net::IpAddr};

use netobs_common::{
    kernel::state_name,
    ledger::{Direction, ResetClass, Role},
};

use super::{Rule, sees};
use crate::{
    audit::finding::Severity,
    diagnose::{
        Evidence, Finding,
        finding::count,
        observed::{Peer, Resets},
    },
    ledger::{
        owner::Owner,
        resets::ResetLabels,
        stories::{Story, What},
    },
};

pub(super) const RULE: Rule = Rule {
    id: "resets",
    looks_at: "resets of established connections, sent and received; health checks told apart",
    sight: sees,
    judge,
};

/// One reset is a client that went away. So many within a window are a pattern...
const FEW: u64 = 5;
/// ...unless they are less than one of so many connections that were made meanwhile.
const RARE_SHARE: u64 = 100;

/// What a finding is about: the books tell more (state, the kernel's reason).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Whose {
    owner: Owner,
    role: Role,
    port: u16,
    direction: Direction,
    class: ResetClass,
}

fn judge(evidence: &Evidence) -> Vec<Finding> {
    // By the state before.
    let mut sums: BTreeMap<Whose, BTreeMap<u8, u64>> = BTreeMap::new();
    for (labels, resets) in evidence.resets() {
        let ResetLabels {
            owner,
            role,
            port,
            direction,
            class,
            ..
        } = *labels;
        if resets == 0 || labels.state == 0 {
            continue;
        }
        let whose = Whose {
            owner,
            role,
            port,
            direction,
            class,
        };
        let states = sums.entry(whose).or_default();
        *states.entry(labels.state).or_default() += resets;
    }
    let judge_one = |(whose, states): (Whose, BTreeMap<u8, u64>)| {
        let resets: u64 = states.values().sum();
        if resets < FEW {
            return None;
        }
        match (whose.direction, whose.class) {
            (Direction::Received, ResetClass::Connection) => received(evidence, &whose, resets),
            (Direction::Sent, ResetClass::Abort) => aborted(evidence, &whose, &states, resets),
            (Direction::Sent, ResetClass::Handshake | ResetClass::Overflow) => {
                is_much(evidence, &whose, resets).then(|| handshake(evidence, &whose, resets))
            }
            _ => None,
        }
    };
    sums.into_iter().filter_map(judge_one).collect()
}

/// The peers of these resets: address, those that are real, those that look like health checks.
fn peers(
    evidence: &Evidence,
    whose: &Whose,
    of: impl Fn(&Peer) -> Resets,
) -> Vec<(IpAddr, u64, u64)> {
    let all = evidence
        .observed
        .peers()
        .of(whose.owner.netns, whose.role, whose.port);
    let mut sums: BTreeMap<IpAddr, (u64, u64)> = BTreeMap::new();
    for (address, peer) in all {
        let resets = of(peer);
        if resets.all > 0 {
            let sum = sums.entry(address).or_default();
            *sum = (sum.0 + resets.real(), sum.1 + resets.checks());
        }
    }
    let mut all: Vec<_> = sums
        .into_iter()
        .map(|(at, (real, checks))| (at, real, checks))
        .collect();
    all.sort_by_key(|(at, real, _)| (std::cmp::Reverse(*real), *at));
    all
}

/// Connections that were made in the window on this port: what resets are held against.
fn made(evidence: &Evidence, whose: &Whose) -> u64 {
    if !evidence.knows_totals() {
        return 0;
    }
    match whose.role {
        Role::Server => evidence.established(whose.owner.netns, whose.port),
        Role::Client => evidence
            .connects()
            .filter(|(labels, _)| labels.owner == whose.owner && labels.port == whose.port)
            .map(|(_, values)| values.latency.count())
            .sum(),
    }
}

fn is_much(evidence: &Evidence, whose: &Whose, resets: u64) -> bool {
    resets >= FEW && resets > made(evidence, whose) / RARE_SHARE
}

/// How many that is of those that were made, where that is known.
fn share(evidence: &Evidence, whose: &Whose, resets: u64) -> Option<String> {
    let made = made(evidence, whose);
    (made > 0).then(|| format!("{resets}, while {} began", count(made, "connection")))
}

/// Evidence by peer, and of what is no fault.
fn seen_by(mut finding: Finding, peers: &[(IpAddr, u64, u64)], preposition: &str) -> Finding {
    let real = peers.iter().filter(|(_, real, _)| *real > 0);
    for (address, real, _) in real.clone().take(3) {
        finding = finding.seen(format!("{real} {preposition} {address}"));
    }
    if let Some(more) = real.count().checked_sub(3).filter(|more| *more > 0) {
        finding = finding.seen(format!(
            "the rest {preposition} {}",
            count(more as u64, "more peer")
        ));
    }
    let checks: u64 = peers.iter().map(|(.., checks)| checks).sum();
    if checks > 0 {
        finding = finding.seen(format!(
            "{checks} more look like health checks (short, without a byte or at a regular pace) and are \
             not counted here"
        ));
    }
    finding
}

fn port(whose: &Whose) -> String {
    match whose.port {
        0 => "high ports".to_owned(),
        port => format!("port {port}"),
    }
}

/// What a peer reset within a moment, without a byte or as regularly as a clock, is a health check: no
/// harm, said so only where there is more.
fn received(evidence: &Evidence, whose: &Whose, resets: u64) -> Option<Finding> {
    let peers = peers(evidence, whose, |peer| peer.received);
    let checks: u64 = peers.iter().map(|(.., checks)| checks).sum();
    let real = resets.saturating_sub(checks);
    if !is_much(evidence, whose, real) {
        return None;
    }
    let side = match whose.role {
        Role::Server => "of the server on",
        Role::Client => "of the client to",
    };
    let summary = format!(
        "peers reset {} {side} {}",
        count(real, "connection"),
        port(whose)
    );
    let finding = Finding::new("resets-received", Severity::Warning, summary)
        .of(&whose.owner)
        .events(real)
        .seen_if(share(evidence, whose, real));
    Some(
        seen_by(finding, &peers, "by")
            .because("the peer gave the connection up: its own time limit, a crash, or a middlebox that forgot it")
            .mend("netobs trace reset shows each with its age and how long it had been idle: one idle time for all is a time limit")
            .mend("for idle connections: keep-alive shorter than the load balancer's or NAT's limit")
            .told(told(evidence, whose)),
    )
}

fn aborted(
    evidence: &Evidence,
    whose: &Whose,
    states: &BTreeMap<u8, u64>,
    resets: u64,
) -> Option<Finding> {
    let peers = peers(evidence, whose, |peer| peer.sent);
    let checks: u64 = peers.iter().map(|(.., checks)| checks).sum();
    let real = resets.saturating_sub(checks);
    if !is_much(evidence, whose, real) {
        return None;
    }
    let side = match whose.role {
        Role::Server => "on",
        Role::Client => "to",
    };
    let summary = format!(
        "this side aborted {} {side} {}",
        count(real, "connection"),
        port(whose)
    );
    let states: Vec<String> = states
        .iter()
        .map(|(state, resets)| format!("{resets} in {}", state_name(*state)))
        .collect();
    let finding = Finding::new("resets-sent", Severity::Info, summary)
        .of(&whose.owner)
        .events(real)
        .seen(format!("{resets} resets sent: {}", states.join(", ")))
        .seen_if(share(evidence, whose, real));
    Some(
        seen_by(finding, &peers, "to")
            .because("the process closed with unread data or SO_LINGER 0, or a timer of the stack ended it")
            .mend("netobs trace reset shows the reason where the kernel gives one; read what has come before close()")
            .told(told(evidence, whose)),
    )
}

fn handshake(evidence: &Evidence, whose: &Whose, resets: u64) -> Finding {
    let summary = format!(
        "{} answered by a reset on port {}",
        count(resets, "handshake"),
        whose.port
    );
    let because = if whose.class == ResetClass::Overflow {
        "net.ipv4.tcp_abort_on_overflow=1, and the accept queue was full"
    } else {
        "net.ipv4.tcp_abort_on_overflow=1 with a full accept queue, or ACKs that fit no handshake"
    };
    Finding::new("handshakes-reset", Severity::Warning, summary)
        .of(&whose.owner)
        .events(resets)
        .seen("resets of a listening socket")
        .because(because)
        .mend("sysctl net.ipv4.tcp_abort_on_overflow in that namespace should be 0; see accept-queue-overflow")
        .told(told(evidence, whose))
}

fn told(evidence: &Evidence, whose: &Whose) -> Vec<String> {
    let here = |story: &Story| {
        let (own, port) = match whose.role {
            Role::Server => (&story.server, story.server.address.port()),
            Role::Client => (&story.client, story.server.address.port()),
        };
        own.netns == whose.owner.netns && (whose.port == 0 || port == whose.port)
    };
    evidence.told(|story| {
        let reset = |what: &What| {
            matches!(what, What::Reset { direction, class, .. }
                if *direction == whose.direction && *class == whose.class)
        };
        here(story) && story.moments.iter().any(|moment| reset(&moment.what))
    })
}
