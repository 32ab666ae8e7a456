//! Accept queues that overflow: the limit is too low, or the process accepts too slowly.

use netobs_common::ledger::{Reason, Stage};

use super::{Rule, time};
use crate::{
    audit::finding::Severity,
    diagnose::{
        Evidence, Finding,
        evidence::{Listening, above},
        finding::count,
    },
    ledger::{accepts::AcceptValues, listeners::ListenerLabels},
};

pub(super) const RULE: Rule = Rule {
    id: "accept-queue",
    looks_at: "accept queues: overflows, and how long connections wait for accept()",
    judge,
};

/// A process that takes a connection out of its queue within this time has accepted promptly: the
/// scheduler of a busy host takes a few tens of milliseconds.
const PROMPT_NS: u64 = 100_000_000;
/// More connections than one in so many that waited longer than [`PROMPT_NS`] make a slow process.
const SLOW_SHARE: u64 = 10;
/// Fewer slow accepts than this are chance.
const FEW: u64 = 5;
/// Waits of a second and more are felt by users, whether or not the queue overflows.
const FELT_NS: u64 = 1_000_000_000;

fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (labels, now) in &evidence.after.listeners {
        let before = evidence.before.listeners.get(labels);
        let before = before.copied().unwrap_or_default();
        let accepts = evidence.accepts(labels);
        let [syn, ack] = [Stage::Syn, Stage::Ack].map(|stage| dropped(&before, now, stage));
        if syn + ack > 0 {
            findings.push(overflow(labels, now, &accepts, syn, ack));
        } else if above(&accepts.latency, FELT_NS) >= FEW {
            findings.push(slow(labels, &accepts));
        }
    }
    findings
}

fn dropped(before: &Listening, now: &Listening, stage: Stage) -> u64 {
    let full = |listening: &Listening| {
        listening.counts.drops[stage as usize][Reason::AcceptQueueFull as usize]
    };
    full(now).saturating_sub(full(before))
}

fn overflow(
    labels: &ListenerLabels,
    now: &Listening,
    accepts: &AcceptValues,
    syn: u64,
    ack: u64,
) -> Finding {
    let (address, port) = (labels.address, labels.port);
    let waited = &accepts.latency;
    let accepted = waited.count();
    let late = above(waited, PROMPT_NS);
    let summary = format!(
        "the accept queue of {address} port {port} overflowed: {} dropped",
        count(syn + ack, "packet")
    );
    let mut finding = Finding::new("accept-queue-overflow", Severity::Critical, summary)
        .of(&labels.owner)
        .events(syn + ack)
        .seen(format!(
            "{} and {} dropped with the queue full",
            count(syn, "SYN"),
            count(ack, "final ACK")
        ))
        .seen(format!(
            "queue now {}, limit {} (it holds one more), longest in the last minute {}",
            now.length, now.limit, now.peak
        ))
        .because("clients see connects that take 1, 3 or 7 s, or time out: their SYN is sent again")
        .because(format!(
            "the accept queue was full: more than {} connections waited for accept()",
            now.limit
        ));
    let stuck = accepted == 0 && now.length > now.limit;
    if stuck {
        finding = finding
            .seen("no connection was accepted in the window")
            .because("the process does not accept at all: it is stuck, stopped or overloaded")
            .mend(look_at(&labels.owner.process.to_string(), port));
    } else if late > accepted / SLOW_SHARE {
        finding = finding
            .seen(waits(accepted, late, waited.sum_ns))
            .because("the process accepts too slowly; a longer queue would only hide it")
            .mend(look_at(&labels.owner.process.to_string(), port))
            .mend("give it more workers or more CPU; accept in a thread that does nothing else");
    } else {
        finding = finding.seen(waits(accepted, late, waited.sum_ns)).because(
            "the process accepts promptly: connections come in bursts that the limit cuts",
        );
        finding = match now.cut {
            Some(true) => finding
                .because("net.core.somaxconn binds: listen() asked for more")
                .mend(format!(
                    "in that network namespace: sysctl -w net.core.somaxconn={}; then restart the \
                     process, or have it call listen() again",
                    higher(now.limit)
                )),
            Some(false) => finding.because("the listen() argument binds").mend(format!(
                "raise the backlog that the process passes to listen() above {} (nginx: listen \
                     ... backlog=N, haproxy: backlog N, Go: net.core.somaxconn)",
                now.limit
            )),
            None => finding.mend(format!(
                "raise the listen() argument and net.core.somaxconn above {}: the lesser binds \
                 (netobs audit tells)",
                now.limit
            )),
        };
    }
    finding
}

fn slow(labels: &ListenerLabels, accepts: &AcceptValues) -> Finding {
    let waited = &accepts.latency;
    let late = above(waited, FELT_NS);
    let (address, port) = (labels.address, labels.port);
    let summary = format!(
        "{} waited 1 s and longer for accept() on {address} port {port}",
        count(late, "connection")
    );
    Finding::new("accept-slow", Severity::Warning, summary)
        .of(&labels.owner)
        .events(late)
        .seen(waits(waited.count(), late, waited.sum_ns))
        .because("clients are connected and get no answer: the process has not taken them yet")
        .because("the process accepts too slowly for what comes")
        .mend(look_at(&labels.owner.process.to_string(), port))
}

fn waits(accepted: u64, late: u64, sum_ns: u64) -> String {
    let mean = sum_ns.checked_div(accepted).unwrap_or(0);
    format!(
        "{} accepted in the window, {late} of them late, after {} on average",
        count(accepted, "connection"),
        time(mean)
    )
}

/// Room for a burst of four times as much; a power of two, as the kernel's own defaults.
fn higher(limit: u64) -> u64 {
    (limit.max(16) * 4).next_power_of_two().min(65_535)
}

fn look_at(process: &str, port: u16) -> String {
    format!(
        "see what {} does instead: top -H, pidstat -t, cpu.stat of its cgroup (nr_throttled), \
         ss -ltnp 'sport = :{port}'",
        if process.is_empty() { "it" } else { process }
    )
}
