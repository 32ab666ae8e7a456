//! Families of name lookups.

use netobs_common::dns::DnsCounts;
use prometheus_client::encoding::DescriptorEncoder;

use super::{
    View,
    family::{Counter, Family, OWNER, families, owner, with_owner},
};
use crate::ledger::dns::response_name;

families! {
    DURATION = Buckets "netobs_dns_lookup_duration_seconds" owner ["response_code"]
        "Time from the first query of a lookup over UDP port 53 to its answer";
    UNANSWERED = Counter "netobs_dns_unanswered" owner []
        "Lookups without an answer within five seconds, whether or not the program still waited";
    QUERIES = Counter "netobs_dns_queries" owner []
        "Queries sent over UDP port 53, each datagram; less the repeated ones, they are lookups";
    REPEATED = Counter "netobs_dns_repeated_queries" owner []
        "Queries sent again, or to another server, on the same socket while no answer had come";
    LATE = Counter "netobs_dns_late_answers" owner []
        "Answers that came within a minute after their lookup was counted as unanswered";
    TRUNCATED = Counter "netobs_dns_truncated_answers" owner []
        "Answers that did not fit (flag TC): the program asks again over TCP, which is not seen";
    STRAY = Counter "netobs_dns_stray_answers" owner []
        "Answers to nothing that waits: second ones, forged ones, those to queries that were not seen";
    MALFORMED = Counter "netobs_dns_malformed_messages" owner []
        "Datagrams from or to port 53 that are too short for a DNS message";
}

pub(super) fn encode(view: &View<'_>, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let Some(book) = view.dns else {
        return Ok(());
    };
    DURATION.encode(
        encoder,
        book.answers().sorted().map(|(labels, answered)| {
            let response = labels.map_or("other", |labels| response_name(labels.response));
            let owner = owner(labels.map(|labels| &labels.owner), view.names);
            (with_owner(owner, [response.into()]), &answered.0)
        }),
    )?;
    // Who asked begins at 0 with most of these; what nobody asked for has a series when it comes.
    let counter = |family: Family<Counter, OWNER>,
                   encoder: &mut DescriptorEncoder<'_>,
                   always: bool,
                   value: fn(&DnsCounts) -> u64| {
        let rows = book
            .counts()
            .sorted()
            .filter(|(_, counts)| value(counts) > 0 || always && counts.queries > 0)
            .map(|(labels, counts)| (owner(labels, view.names), value(counts)));
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
