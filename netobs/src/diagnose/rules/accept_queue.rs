//! Accept queues that overflow: the limit is too low, or the process accepts too slowly.

use netobs_common::ledger::{Reason, Stage};

use super::{Rule, sees, time};
use crate::{
    audit::finding::Severity,
    diagnose::{Evidence, Finding, evidence::above, finding::count, snapshot::Listening},
    ledger::{
        accepts::AcceptValues,
        listeners::ListenerLabels,
        stories::{Moment, Story, What},
    },
};

pub(super) const RULE: Rule = Rule {
    id: "accept-queue",
    looks_at: "accept queues: overflows, and how long connections wait for accept()",
    sight: sees,
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
        let stages = Stage::ALL.map(|stage| dropped(&before, now, stage));
        if stages.iter().sum::<u64>() > 0 {
            let queue = Queue::of(evidence, labels, &before, now);
            findings.push(overflow(evidence, labels, &queue, &accepts, stages));
        } else if above(&accepts.latency, FELT_NS) >= FEW {
            findings.push(slow(evidence, labels, &accepts));
        }
    }
    findings
}

/// A queue as the finding shows it.
struct Queue {
    /// Whether nothing listens there any more.
    closed: bool,
    length: u64,
    /// The limit in force, or that was in force last; `None` when it is not known.
    limit: Option<u64>,
    /// The longest that was seen.
    longest: u64,
    cut: Option<bool>,
}

impl Queue {
    fn of(
        evidence: &Evidence,
        labels: &ListenerLabels,
        before: &Listening,
        now: &Listening,
    ) -> Self {
        let seen = evidence
            .observed
            .overflows(labels.owner.netns, labels.address, labels.port)
            .unwrap_or_default();
        // A recording shows the queue at the latest drop; who listens may not be in it.
        let closed = evidence.knows_totals() && now.sockets == 0;
        let last = before.limit.max(seen.limit.into());
        Self {
            closed,
            length: now.length,
            limit: if closed {
                (last > 0).then_some(last)
            } else {
                Some(now.limit)
            },
            longest: now.peak.max(before.peak).max(seen.longest.into()),
            cut: now.cut.or(before.cut),
        }
    }

    /// What was seen of it.
    fn evidence(&self) -> String {
        let longest = self.longest;
        match (self.closed, self.limit) {
            (false, limit) => format!(
                "queue {} of a limit of {} (it holds one more) at the end; longest seen {longest}",
                self.length,
                limit.unwrap_or(0)
            ),
            (true, Some(limit)) => format!(
                "closed by the end; its limit was {limit} (it held one more); longest seen {longest}"
            ),
            (true, None) => format!(
                "opened and closed within the window, so its limit is not known; longest seen {longest}"
            ),
        }
    }

    /// How full it was.
    fn full(&self) -> String {
        let limit = self.limit.map_or_else(
            || "as many connections as it takes".to_owned(),
            |limit| format!("more than {}", count(limit, "connection")),
        );
        format!("the accept queue was full: {limit} waited for accept()")
    }

    fn raise(&self) -> String {
        let above = self
            .limit
            .map_or_else(String::new, |limit| format!(" above {limit}"));
        format!(
            "raise the listen() argument and net.core.somaxconn{above}: the lesser binds (netobs audit \
             tells)"
        )
    }
}

fn dropped(before: &Listening, now: &Listening, stage: Stage) -> u64 {
    let full = |listening: &Listening| {
        let reasons = listening.counts.drops.get(stage as usize);
        let full = reasons.and_then(|by| by.get(Reason::AcceptQueueFull as usize));
        full.copied().unwrap_or(0)
    };
    full(now).saturating_sub(full(before))
}

fn overflow(
    evidence: &Evidence,
    labels: &ListenerLabels,
    queue: &Queue,
    accepts: &AcceptValues,
    [syn, ack, other]: [u64; 3],
) -> Finding {
    let (address, port) = (labels.address, labels.port);
    let waited = &accepts.latency;
    let accepted = waited.count();
    let late = above(waited, PROMPT_NS);
    let summary = format!(
        "the accept queue of {address} port {port} overflowed: {} dropped",
        count(syn + ack + other, "packet")
    );
    let overflows = evidence
        .observed
        .overflows(labels.owner.netns, address, port);
    let when = overflows
        .as_ref()
        .and_then(|seen| evidence.when(&seen.times, "drops"));
    let mut finding = Finding::new("accept-queue-overflow", Severity::Critical, summary)
        .of(&labels.owner)
        .events(syn + ack + other)
        .seen(format!(
            "dropped with the queue full: {}, {}{}",
            count(syn, "SYN"),
            count(ack, "final ACK"),
            match other {
                0 => String::new(),
                other => format!(
                    ", {other} of which it is not known which (ACKs with a SYN cookie, mostly)"
                ),
            }
        ))
        .seen_if(when)
        .seen(queue.evidence())
        .told(evidence.told(|story| is_of(story, labels) && is_overflow(story)))
        .because("clients see connects that take 1, 3 or 7 s, or time out: their SYN is sent again")
        .because(queue.full());
    let unknown = match (evidence.knows_totals(), evidence.sees_accepts()) {
        (true, true) => None,
        (true, false) => Some((
            "accepts are not seen here",
            "the process accepts too slowly, or not at all, or the limit is too low for its bursts: which \
             of them is not known without accepts",
        )),
        (false, _) => Some((
            "no connection that waited 100 ms or longer was recorded",
            "the process accepts promptly and the limit is too low for its bursts, or it does not \
             accept at all, or its accepts were not watched: a recording does not tell which",
        )),
    };
    if let Some((seen, because)) = unknown.filter(|_| late == 0) {
        return finding
            .seen(seen)
            .because(because)
            .mend(look_at(&labels.owner.process.to_string(), port))
            .mend(queue.raise());
    }
    // A recording holds the late ones only, so all of them are.
    let full = queue.limit.is_some_and(|limit| queue.length > limit);
    if accepted == 0 && (full || queue.closed) {
        finding = finding
            .seen("no connection was accepted in the window")
            .because(if queue.closed {
                "the process accepted nothing before it closed the listener: it was stuck, stopped or \
                 on its way out"
            } else {
                "the process does not accept at all: it is stuck, stopped or overloaded"
            })
            .mend(look_at(&labels.owner.process.to_string(), port));
    } else if accepted == 0 {
        finding = finding
            .seen("no accept was seen in the window, and the queue is not full any more")
            .because(
                "what waited has gone without an accept that can be seen here: clients gave up, or it \
                 was accepted by io_uring",
            )
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
        let limit = queue.limit.unwrap_or(0);
        finding = match queue.cut {
            Some(true) => finding
                .because("net.core.somaxconn binds: listen() asked for more")
                .mend(format!(
                    "in that network namespace: sysctl -w net.core.somaxconn={}; then restart the \
                     process, or have it call listen() again",
                    higher(limit)
                )),
            Some(false) => finding.because("the listen() argument binds").mend(format!(
                "raise the backlog that the process passes to listen() above {limit} (nginx: \
                 listen ... backlog=N, haproxy: backlog N, Go: net.core.somaxconn)"
            )),
            None => finding.mend(queue.raise()),
        };
    }
    finding
}

fn slow(evidence: &Evidence, labels: &ListenerLabels, accepts: &AcceptValues) -> Finding {
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
        .told(evidence.told(|story| {
            let waited = |moment: &Moment| {
                matches!(moment.what, What::Accepted { waited_ns } if waited_ns >= FELT_NS)
            };
            is_of(story, labels) && story.moments.iter().any(waited)
        }))
}

/// Whether the server of a connection is this listener.
fn is_of(story: &Story, labels: &ListenerLabels) -> bool {
    let server = &story.server;
    let netns = if server.netns == 0 {
        story.client.netns
    } else {
        server.netns
    };
    let address = labels.address.to_canonical();
    netns == labels.owner.netns
        && server.address.port() == labels.port
        && (address.is_unspecified() || address == server.address.ip())
}

fn is_overflow(story: &Story) -> bool {
    let dropped = |moment: &Moment| matches!(moment.what, What::ListenDrop { .. });
    story.unanswered.queue_full > 0 || story.moments.iter().any(dropped)
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
