//! The rules: one file per area, one short unit per rule.
//!
//! To add one: write a `Rule` beside its relatives, add it to that file's `RULES`, give it
//! the next free id (ids are never used again), and a row in that file's tests. The
//! documentation page and `netobs audit explain` are made from the same text.

mod buffers;
mod congestion;
mod conntrack;
mod device;
mod drift;
mod fastopen;
mod fastopen_use;
mod keepalive;
mod listen;
mod loss;
mod memory;
mod persistent;
mod ports;
mod retries;
mod syn;
#[cfg(test)]
mod table;
mod time_wait;
mod timestamps;

use crate::audit::finding::{Problem, Severity};
use crate::audit::subject::{Skip, Subject};

/// What a rule concludes: problems (none is a pass), or why it cannot tell.
pub type Verdict = Result<Vec<Problem>, Skip>;

/// Where a rule is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// In every namespace.
    Namespace,
    /// In every namespace but the host's.
    OtherNamespace,
    /// Once, for the node.
    Node,
    /// Once, for the persistent files.
    Persistent,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Stable id, such as `NETOBS-TCP-001`.
    pub id: &'static str,
    /// One line.
    pub title: &'static str,
    /// Where it is applied.
    pub applies: Applies,
    /// The gravest it can get.
    pub severity: Severity,
    /// The settings it reads; the first is the one it is about.
    pub keys: &'static [&'static str],
    /// Its documentation.
    pub doc: Doc,
    /// Its verdict.
    pub check: fn(&Subject<'_>) -> Verdict,
}

/// The documentation of a rule, one paragraph under each fixed heading.
#[derive(Debug)]
pub struct Doc {
    /// What it checks.
    pub checks: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What counts as evidence.
    pub evidence: &'static str,
    /// What to do.
    pub suggestion: &'static str,
    /// When to ignore it.
    pub ignore: &'static str,
    /// Kernel source and documents relied on.
    pub sources: &'static [&'static str],
}

/// Kernel documentation of the settings.
const IP_SYSCTL: &str = "https://docs.kernel.org/networking/ip-sysctl.html";

/// Every rule, in the order of their areas.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    [
        timestamps::RULES,
        fastopen::RULES,
        fastopen_use::RULES,
        time_wait::RULES,
        syn::RULES,
        listen::RULES,
        retries::RULES,
        loss::RULES,
        buffers::RULES,
        memory::RULES,
        ports::RULES,
        keepalive::RULES,
        congestion::RULES,
        conntrack::RULES,
        device::RULES,
        persistent::RULES,
        drift::RULES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// Looks a rule up by id, in any case; the bare number will do.
#[must_use]
pub fn find(id: &str) -> Option<&'static Rule> {
    const PREFIX: &str = "NETOBS-TCP-";
    let id = id.trim();
    let number = match id.split_at_checked(PREFIX.len()) {
        Some((prefix, number)) if prefix.eq_ignore_ascii_case(PREFIX) => number,
        _ => id,
    };
    if number.is_empty() || number.len() > 3 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let full = format!("{PREFIX}{number:0>3}");
    all().find(|rule| rule.id == full)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{all, find};
    use crate::audit::keys;

    #[test]
    fn ids_are_unique_and_well_formed_and_every_rule_is_documented() {
        let mut seen = BTreeSet::new();
        for rule in all() {
            assert!(seen.insert(rule.id), "{} twice", rule.id);
            let number = rule.id.strip_prefix("NETOBS-TCP-").expect(rule.id);
            assert!(number.len() == 3 && number.bytes().all(|b| b.is_ascii_digit()));
            assert!(!rule.keys.is_empty(), "{}", rule.id);
            for key in rule.keys {
                assert!(
                    keys::find(key).is_some(),
                    "{}: {key} is never read",
                    rule.id
                );
            }
            let d = &rule.doc;
            for text in [
                rule.title,
                d.checks,
                d.why,
                d.evidence,
                d.suggestion,
                d.ignore,
            ] {
                assert!(text.len() > 5, "{}: {text:?}", rule.id);
                assert!(!text.contains('\n'), "{}: {text:?}", rule.id);
            }
            assert!(!d.sources.is_empty(), "{}", rule.id);
        }
    }

    #[test]
    fn every_setting_that_is_read_is_used_by_a_rule() {
        let used: BTreeSet<&str> = all().flat_map(|r| r.keys).copied().collect();
        for key in keys::KEYS {
            assert!(used.contains(key.name), "{} is read for nothing", key.name);
        }
    }

    #[test]
    fn a_rule_is_found_by_id_or_number() {
        assert_eq!(find("netobs-tcp-001").map(|r| r.id), Some("NETOBS-TCP-001"));
        assert_eq!(find(" 001 ").map(|r| r.id), Some("NETOBS-TCP-001"));
        assert_eq!(find("1").map(|r| r.id), Some("NETOBS-TCP-001"));
        assert_eq!(find("NETOBS-TCP-40").map(|r| r.id), Some("NETOBS-TCP-040"));
        for unknown in [
            "",
            "0001",
            "NETOBS-TCP-",
            "NETOBS-TCP-999",
            "NETOBS-TCP-+1",
            "tcp_timestamps",
            "\u{1b}[2J",
            "netobs-tcp\u{e9}",
        ] {
            assert!(find(unknown).is_none(), "{unknown:?}");
        }
    }
}
