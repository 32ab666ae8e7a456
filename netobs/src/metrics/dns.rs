//! Families of name lookups.

use netobs_common::dns::DnsCounts;
use prometheus_client::encoding::DescriptorEncoder;

use super::family::{Counter, Family, Value, families};
use crate::ledger::dns::{DnsBook, DnsLabels, DnsValues, response_name};

families! {
    DURATION = Buckets "netobs_dns_lookup_duration_seconds" ["netns", "process", "response_code"]
        "Time from the first query of a lookup over UDP port 53 to its answer";
    UNANSWERED = Counter "netobs_dns_unanswered" ["netns", "process"]
        "Lookups without an answer within five seconds, whether or not the program still waited";
    QUERIES = Counter "netobs_dns_queries" ["netns", "process"]
        "Queries sent over UDP port 53, each datagram; less the repeated ones, they are lookups";
    REPEATED = Counter "netobs_dns_repeated_queries" ["netns", "process"]
        "Queries sent again, or to another server, on the same socket while no answer had come";
    LATE = Counter "netobs_dns_late_answers" ["netns", "process"]
        "Answers that came within a minute after their lookup was counted as unanswered";
    TRUNCATED = Counter "netobs_dns_truncated_answers" ["netns", "process"]
        "Answers that did not fit (flag TC): the program asks again over TCP, which is not seen";
    STRAY = Counter "netobs_dns_stray_answers" ["netns", "process"]
        "Answers to nothing that waits: second ones, forged ones, those to queries that were not seen";
    MALFORMED = Counter "netobs_dns_malformed_messages" ["netns", "process"]
        "Datagrams from or to port 53 that are too short for a DNS message";
}

pub(super) fn encode(book: &DnsBook, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    DURATION.encode(
        encoder,
        book.series().iter().flat_map(|(labels, values)| {
            let [netns, process] = common(labels);
            values.answers.iter().map(move |(response, latencies)| {
                let response = match labels {
                    Some(_) => response_name(*response),
                    None => "other",
                };
                ([netns.clone(), process.clone(), response.into()], latencies)
            })
        }),
    )?;
    // Who asked begins at 0 with all of these; what nobody asked for has a series when it comes.
    let asks = |values: &DnsValues| values.counts.queries > 0;
    let counter = |family: Family<Counter, 2>,
                   encoder: &mut DescriptorEncoder<'_>,
                   always: bool,
                   value: fn(&DnsCounts) -> u64| {
        let rows = book
            .series()
            .iter()
            .map(|(labels, values)| (labels, values, value(&values.counts)))
            .filter(|(_, values, count)| *count > 0 || always && asks(values))
            .map(|(labels, _, count)| (common(labels), count));
        family.encode(encoder, rows)
    };
    counter(UNANSWERED, encoder, true, |counts| counts.unanswered)?;
    counter(QUERIES, encoder, true, |counts| counts.queries)?;
    counter(REPEATED, encoder, true, |counts| counts.repeats)?;
    counter(LATE, encoder, true, |counts| counts.late)?;
    counter(TRUNCATED, encoder, true, |counts| counts.truncated)?;
    counter(STRAY, encoder, false, |counts| counts.strays)?;
    counter(MALFORMED, encoder, false, |counts| counts.malformed)
}

fn common(labels: Option<&DnsLabels>) -> [Value<'_>; 2] {
    match labels {
        Some(labels) => [labels.netns.into(), labels.process.as_str().into()],
        None => ["other"; 2].map(Value::from),
    }
}
