//! What a lookup went through, server by server.

use std::{fmt::Write as _, time::Duration};

use super::duration_text;
use crate::path::{
    cause::ErrorType,
    outcome::{Failure, Lookup, LookupSource, Query, QueryOutcome, Step, Transport},
    resolver::server_name,
};

/// A lookup is worth a sentence when it failed, or when a question had no proper answer.
pub(super) fn of_lookup(step: &Step, lookup: &Lookup, failure: Option<&Failure>) -> Option<String> {
    let took = duration_text(step.phases.dns.map_or(Duration::ZERO, |span| span.length));
    if lookup.source != LookupSource::Dns {
        return failure.map(|failure| format!("DNS: {}", failure.message));
    }
    let rounds = rounds(lookup);
    let trouble: Vec<&Round<'_>> = rounds.iter().filter(|round| !round.fine()).collect();
    if failure.is_none() && trouble.is_empty() {
        return None;
    }
    let mut text = format!("DNS took {took}: ");
    if let Some(failure) = failure.filter(|_| trouble.is_empty()) {
        text.push_str(&failure.message);
        return Some(text);
    }
    let mut parts: Vec<String> = Vec::new();
    for round in &rounds {
        let part = round.words(&rounds);
        match parts.last_mut() {
            // The same server asked again with the same result is one part.
            Some(last) if *last == part => {}
            _ => parts.push(part),
        }
    }
    text.push_str(&parts.join(", "));
    if let Some(failure) = failure
        && failure.error_type != ErrorType::TimedOut
    {
        let _ = write!(text, "; {}", failure.message);
    }
    Some(text)
}

/// Questions that were asked of one server at once.
struct Round<'a> {
    queries: Vec<&'a Query>,
}

fn rounds(lookup: &Lookup) -> Vec<Round<'_>> {
    let mut rounds: Vec<Round<'_>> = Vec::new();
    for query in &lookup.queries {
        let same = rounds.last_mut().filter(|round| {
            let first = round.queries.first();
            first.is_some_and(|first| first.server == query.server && first.local == query.local)
        });
        match same {
            Some(round) => round.queries.push(query),
            None => rounds.push(Round {
                queries: vec![query],
            }),
        }
    }
    rounds
}

impl Round<'_> {
    fn fine(&self) -> bool {
        self.queries.iter().all(|query| {
            query.outcome == QueryOutcome::Answered
                && matches!(query.response_code, Some("NOERROR" | "NXDOMAIN"))
                && query.strange_answers == 0
        })
    }

    /// The server's place in the list and its address.
    fn server(&self, rounds: &[Self]) -> String {
        let mut servers = Vec::new();
        for round in rounds {
            let server = round.queries.first().map(|query| query.server);
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        let own = self.queries.first().map(|query| query.server);
        let name = own.map_or_else(String::new, server_name);
        let place = servers.iter().position(|server| *server == own);
        match (servers.len(), place) {
            (1, _) => name,
            (_, Some(0)) => format!("the first server ({name})"),
            (_, Some(1)) => format!("the second ({name})"),
            (_, Some(2)) => format!("the third ({name})"),
            _ => name,
        }
    }

    fn words(&self, rounds: &[Self]) -> String {
        let server = self.server(rounds);
        let longest = self.queries.iter().map(|query| query.length).max();
        let took = duration_text(longest.unwrap_or_default());
        let unanswered = self.queries.iter().find(|query| {
            !matches!(
                query.outcome,
                QueryOutcome::Answered | QueryOutcome::Truncated
            )
        });
        let Some(query) = unanswered else {
            let refused = |it: &&&Query| it.response_code.is_some_and(|code| code != "NOERROR");
            let strange: Vec<&&Query> = self.queries.iter().filter(refused).collect();
            let code = match strange.first().and_then(|it| it.response_code) {
                None => String::new(),
                Some(code) if strange.len() == self.queries.len() => format!(" {code}"),
                // One family has another answer than the other.
                Some(code) => {
                    let record_type = strange.first().map_or("", |it| &it.record_type);
                    format!(" ({code} about {record_type})")
                }
            };
            let by = match self.queries.first().map(|query| query.transport) {
                Some(Transport::Tcp) => " over TCP",
                _ => "",
            };
            let cut = self
                .queries
                .iter()
                .any(|it| it.outcome == QueryOutcome::Truncated);
            return if cut {
                format!("{server} cut its answer short")
            } else {
                format!("{server} answered{code}{by} in {took}")
            };
        };
        let some = self.queries.len() > 1
            && self
                .queries
                .iter()
                .any(|query| query.outcome == QueryOutcome::Answered);
        let about = if some {
            format!(" about {}", query.record_type)
        } else {
            String::new()
        };
        match query.outcome {
            QueryOutcome::Refused => format!("nobody listens at {server}"),
            QueryOutcome::NotSent => format!("{server} cannot be reached"),
            _ if query.strange_answers == 1 => {
                format!("a packet from {server} answered something else")
            }
            _ if query.strange_answers > 0 => format!(
                "{} packets from {server} answered something else",
                query.strange_answers
            ),
            _ => format!("no answer{about} from {server}"),
        }
    }
}
