//! Name lookups that were slow, failed or remained unanswered: of whom, where, and for what.

use std::{collections::HashMap, net::IpAddr};

use netobs_common::event::{DNS_ANSWERED, Dns};

use super::{Times, place};
use crate::{
    ledger::{
        dns::{Question, response_name},
        listeners::address,
    },
    sys::owner::Comm,
};

/// Names of one process that are kept apart.
const MOST_NAMES: usize = 512;
/// Servers of one process that are kept apart.
const MOST_SERVERS: usize = 64;
/// Of an answer's flags: the response code.
const RESPONSE_CODE: u16 = 0x000f;

/// By network namespace and process.
#[derive(Clone, Debug, Default)]
pub(super) struct Lookups(HashMap<(u32, Comm), Asked>);

/// What one process asked.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Asked {
    /// When it got no answer.
    pub(in super::super) unanswered: Times,
    /// The longest that an answer took, ns.
    pub(in super::super) slowest_ns: u64,
    servers: HashMap<IpAddr, Server>,
    names: HashMap<String, u64>,
}

/// What was seen of one server.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Server {
    /// Lookups that it did not answer in time.
    pub(in super::super) unanswered: u64,
    /// Lookups that it answered late, or with a failure.
    pub(in super::super) answered: u64,
}

impl Lookups {
    pub(super) fn take(&mut self, event: &Dns) {
        let lookup = &event.lookup;
        let key = (event.header.netns, Comm::from_bytes(&lookup.owner.comm));
        let Some(asked) = place(&mut self.0, key) else {
            return;
        };
        let answered = event.outcome == DNS_ANSWERED;
        let at = address(lookup.ends.family, lookup.ends.remote_address).to_canonical();
        if asked.servers.len() < MOST_SERVERS || asked.servers.contains_key(&at) {
            let server = asked.servers.entry(at).or_default();
            server.unanswered += u64::from(!answered);
            server.answered += u64::from(answered);
        }
        if answered {
            asked.slowest_ns = asked.slowest_ns.max(event.latency_ns);
        } else {
            asked.unanswered.add(event.header.ktime_ns, 1);
        }
        let bytes = &lookup.question;
        let known = usize::from(lookup.question_bytes).min(bytes.len());
        let question = bytes.get(..known).map(Question::decode);
        if let Some(Ok(question)) = question {
            let mut name = format!("{} {}", question.name, question.kind_name());
            if answered && event.answer_flags & RESPONSE_CODE != 0 {
                let code = response_name((event.answer_flags & RESPONSE_CODE).into());
                name.push_str(&format!(" ({code})"));
            }
            if asked.names.len() < MOST_NAMES || asked.names.contains_key(&name) {
                *asked.names.entry(name).or_default() += 1;
            }
        }
    }

    pub(super) fn of(&self, netns: u32, process: Comm) -> Option<&Asked> {
        self.0.get(&(netns, process))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Asked {
    /// The servers, those that left most unanswered first.
    pub(in super::super) fn servers(&self) -> Vec<(IpAddr, Server)> {
        let mut all: Vec<_> = self.servers.iter().map(|(at, it)| (*at, *it)).collect();
        all.sort_by_key(|(at, it)| (std::cmp::Reverse((it.unanswered, it.answered)), *at));
        all
    }

    /// The names that were asked for, the most frequent first.
    pub(in super::super) fn names(&self) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self
            .names
            .iter()
            .map(|(name, times)| (name.as_str(), *times))
            .collect();
        all.sort_by_key(|(name, times)| (std::cmp::Reverse(*times), *name));
        all
    }
}
