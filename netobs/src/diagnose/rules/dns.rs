//! Name lookups that are slow, fail, or get no answer.

use super::{Rule, Sight, time};
use crate::{
    audit::finding::Severity,
    diagnose::{Evidence, Finding, Lookups, Source, finding::count, observed::Asked},
    ledger::owner::Owner,
};

pub(super) const RULE: Rule = Rule {
    id: "dns",
    looks_at: "name lookups over UDP port 53: slow, failed, unanswered",
    sight,
    judge,
};

/// UDP loses a packet now and then.
const FEW: u64 = 3;
/// One unanswered lookup of so many is a lost packet, not a fault.
const RARE_SHARE: u64 = 100;
/// Slow or failed ones: names that are cold or gone, unless there are more than one in so many.
const SOME_SHARE: u64 = 20;
/// Fewer slow or failed ones than this are chance.
const SOME: u64 = 5;
/// Servers and names that are told of.
const MOST: usize = 3;

fn sight(evidence: &Evidence) -> Sight {
    match evidence.source {
        Source::Recorded if !evidence.observed.has_lookups() => Sight::blind(
            "no lookup is in the recording: none was slow or failed, or the agent ran without \
             --probe dns",
        ),
        Source::Watched if evidence.after.lookups.is_none() => {
            Sight::blind("the probe dns is not attached (netobs check tells why)")
        }
        _ => Sight::Full,
    }
}

fn judge(evidence: &Evidence) -> Vec<Finding> {
    evidence
        .lookups()
        .flat_map(|(owner, lookups)| {
            let asked = evidence.observed.asked(owner.netns, owner.process);
            let verdicts = [
                unanswered(evidence, owner, &lookups, asked),
                slow(evidence, owner, &lookups, asked),
                failed(evidence, owner, &lookups, asked),
            ];
            verdicts.into_iter().flatten()
        })
        .collect()
}

/// Whether there are more than a share; of a recording, which has no others, whether there are enough.
fn is_much(evidence: &Evidence, number: u64, all: u64, few: u64, share: u64) -> bool {
    number >= few && (number > all / share || !evidence.knows_totals())
}

/// The number of all, where it is known.
fn of_all(evidence: &Evidence, all: u64) -> String {
    if evidence.knows_totals() {
        format!(" of {}", count(all, "lookup"))
    } else {
        String::new()
    }
}

fn unanswered(
    evidence: &Evidence,
    owner: &Owner,
    lookups: &Lookups,
    asked: Option<&Asked>,
) -> Option<Finding> {
    let silent = lookups.counts.unanswered;
    let all = lookups.answered + silent;
    if !is_much(evidence, silent, all, FEW, RARE_SHARE) {
        return None;
    }
    let summary = format!("{} got no answer within 5 s", count(silent, "name lookup"));
    let mut finding = Finding::new("dns-unanswered", Severity::Critical, summary)
        .of(owner)
        .events(silent)
        .seen(format!(
            "{silent}{} remained unanswered, {} answered later; queries sent again: {}",
            of_all(evidence, all),
            lookups.counts.late,
            lookups.counts.repeats
        ))
        .seen_if(asked.and_then(|asked| evidence.when(&asked.unanswered, "given up")));
    finding = seen_where(finding, asked);
    let silent_servers = asked.map(|asked| {
        let servers = asked.servers();
        let dead = servers.iter().filter(|(_, it)| it.unanswered > 0).count();
        (dead, servers.len())
    });
    finding = finding
        .because("whoever asked waited for a time limit: 5 s by default, times attempts, times servers, times search domains");
    finding = match silent_servers {
        Some((1, _)) => finding.because(
            "one name server does not answer: it is down, overloaded, or not reached from there",
        ),
        _ => finding.because(
            "the name servers do not answer: they are down, overloaded, or not reached from there; \
             queries or answers get lost on the way",
        ),
    };
    let server = first_server(asked);
    Some(
        finding
            .mend(format!(
                "ask it from there: nsenter --net=/proc/PID/ns/net dig @{server} NAME, or netobs probe \
                 dns:NAME --server {server}"
            ))
            .mend("on the way: a firewall's drops, a full connection tracking table (conntrack -S: insert_failed)")
            .mend("until then, in /etc/resolv.conf: options timeout:1 attempts:3 rotate; take a dead server out"),
    )
}

fn slow(
    evidence: &Evidence,
    owner: &Owner,
    lookups: &Lookups,
    asked: Option<&Asked>,
) -> Option<Finding> {
    if !is_much(evidence, lookups.slow, lookups.answered, SOME, SOME_SHARE) {
        return None;
    }
    let summary = format!(
        "{} took longer than half a second",
        count(lookups.slow, "name lookup")
    );
    let slowest = asked.map_or(0, |asked| asked.slowest_ns);
    let mut finding = Finding::new("dns-slow", Severity::Warning, summary)
        .of(owner)
        .events(lookups.slow)
        .seen(format!(
            "{} of {} answered late, the slowest after {}",
            lookups.slow,
            count(lookups.answered, "lookup"),
            time(slowest)
        ));
    finding = seen_where(finding, asked);
    Some(
        finding
            .because("each connection to a name waits for its lookup first")
            .because("the name server is overloaded, far away, or waits for others itself")
            .mend(format!(
                "compare: netobs probe dns:NAME --server {}, and the same for another server",
                first_server(asked)
            ))
            .mend("a cache beside the clients (systemd-resolved, unbound, NodeLocal DNSCache)")
            .mend(search_list(lookups)),
    )
}

fn failed(
    evidence: &Evidence,
    owner: &Owner,
    lookups: &Lookups,
    asked: Option<&Asked>,
) -> Option<Finding> {
    if !is_much(evidence, lookups.failed, lookups.answered, SOME, SOME_SHARE) {
        return None;
    }
    let summary = format!(
        "{} answered with a failure (SERVFAIL or REFUSED)",
        count(lookups.failed, "name lookup")
    );
    let finding = Finding::new("dns-failing", Severity::Warning, summary)
        .of(owner)
        .events(lookups.failed)
        .seen(format!(
            "{}{}",
            lookups.failed,
            of_all(evidence, lookups.answered)
        ));
    Some(
        seen_where(finding, asked)
            .because("the name server cannot reach who knows the name, cannot verify the answer, or does not serve this client")
            .mend("the name server's log; dig +trace NAME; is this client in its access list?"),
    )
}

fn seen_where(mut finding: Finding, asked: Option<&Asked>) -> Finding {
    let Some(asked) = asked else {
        return finding;
    };
    for (server, seen) in asked.servers().iter().take(MOST) {
        finding = finding.seen(format!(
            "server {server}: {} unanswered, {} answered late or with a failure",
            seen.unanswered, seen.answered
        ));
    }
    let names = asked.names();
    if !names.is_empty() {
        let told: Vec<String> = names
            .iter()
            .take(MOST)
            .map(|(name, times)| format!("{name} ({times} times)"))
            .collect();
        let more = names.len().saturating_sub(MOST);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        finding = finding.seen(format!("asked for {}{more}", told.join(", ")));
    }
    finding
}

fn first_server(asked: Option<&Asked>) -> String {
    let servers = asked.map(Asked::servers).unwrap_or_default();
    let first = servers.first().map(|(at, _)| at.to_string());
    first.unwrap_or_else(|| "SERVER".to_owned())
}

/// Names without a dot at their end are tried with each search domain first.
fn search_list(lookups: &Lookups) -> String {
    let in_vain = if lookups.no_name * 2 > lookups.answered {
        format!(
            "{} of {} answers say that there is no such name: search domains are tried in vain. ",
            lookups.no_name, lookups.answered
        )
    } else {
        String::new()
    };
    format!(
        "{in_vain}options ndots:1 in /etc/resolv.conf (pods: dnsConfig), or names that end with a dot, \
         save a lookup per search domain"
    )
}
