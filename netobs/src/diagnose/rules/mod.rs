//! The rules, one file each. A threshold is a constant that says why it is what it is: a healthy,
//! busy system must not be called ill.

mod accept_queue;
mod connects;
mod conntrack;
mod dns;
mod paths;
mod resets;
mod retransmits;
mod settings;
mod syn_queue;
mod time_stamps;

pub(super) use self::settings::join;
use super::{Evidence, Finding, Source};

/// One thing to look at.
pub(super) struct Rule {
    /// Stable name; findings may have ids of their own.
    pub(super) id: &'static str,
    /// What is looked at, for the list of what is well.
    pub(super) looks_at: &'static str,
    /// Why it cannot look here, or not fully.
    pub(super) blind: fn(&Evidence) -> Option<String>,
    /// Says what is wrong, if anything is.
    pub(super) judge: fn(&Evidence) -> Vec<Finding>,
}

impl Rule {
    /// Whether there was nothing for it to look at, so that it says nothing of what is well.
    pub(super) fn is_moot(&self, evidence: &Evidence) -> bool {
        self.id == paths::RULE.id && evidence.paths.is_empty()
    }
}

/// All of them.
pub(super) const ALL: &[Rule] = &[
    accept_queue::RULE,
    syn_queue::RULE,
    connects::RULE,
    retransmits::RULE,
    resets::RULE,
    dns::RULE,
    time_stamps::RULE,
    conntrack::RULE,
    paths::RULE,
    settings::RULE,
];

/// Of a rule that sees everything it needs, whatever the evidence is of.
pub(super) fn sees(_: &Evidence) -> Option<String> {
    None
}

/// Of a rule that needs what no recording holds.
pub(super) fn needs_the_kernel(evidence: &Evidence) -> Option<String> {
    let blind = evidence.source == Source::Recorded;
    blind.then(|| "not in a recording; watch with netobs diagnose".to_owned())
}

/// Nanoseconds in words.
pub(super) fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} us", ns / 1000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{}.{} s", ns / 1_000_000_000, ns / 100_000_000 % 10),
    }
}
