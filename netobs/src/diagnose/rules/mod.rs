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
    /// Whether it can look here.
    pub(super) sight: fn(&Evidence) -> Sight,
    /// Says what is wrong, if anything is.
    pub(super) judge: fn(&Evidence) -> Vec<Finding>,
}

/// How far a rule can look.
pub(super) enum Sight {
    /// It sees everything it needs.
    Full,
    /// There is nothing for it to look at: it says neither what is wrong nor what is well.
    Nothing,
    /// Why it sees nothing, or not all.
    Blind(String),
}

impl Sight {
    fn blind(why: &str) -> Self {
        Self::Blind(why.to_owned())
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
fn sees(_: &Evidence) -> Sight {
    Sight::Full
}

/// Of a rule that needs what no recording holds.
fn needs_the_kernel(evidence: &Evidence) -> Sight {
    match evidence.source {
        Source::Recorded => Sight::blind("not in a recording; watch with netobs diagnose"),
        Source::Watched => Sight::Full,
    }
}

/// Nanoseconds in words.
pub(super) fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} us", ns / 1000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{}.{} s", ns / 1_000_000_000, ns / 100_000_000 % 10),
    }
}
