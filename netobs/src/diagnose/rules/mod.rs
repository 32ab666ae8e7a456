//! The rules, one file each. A threshold is a constant that says why it is what it is: a healthy,
//! busy system must not be called ill.

mod accept_queue;
mod connects;
mod conntrack;
mod paths;
mod resets;
mod retransmits;
mod settings;
mod syn_queue;
mod time_stamps;

use super::{Evidence, Finding};

/// One thing to look at.
pub(super) struct Rule {
    /// Stable name; findings may have ids of their own.
    pub(super) id: &'static str,
    /// What is looked at, for the list of what is well.
    pub(super) looks_at: &'static str,
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
    time_stamps::RULE,
    conntrack::RULE,
    paths::RULE,
    settings::RULE,
];

/// Nanoseconds in words.
pub(super) fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} us", ns / 1000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{}.{} s", ns / 1_000_000_000, ns / 100_000_000 % 10),
    }
}
