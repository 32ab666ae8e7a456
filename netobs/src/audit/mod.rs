//! The sysctl auditor.
//!
//! It reads the TCP settings of every network namespace, the files that a reboot would
//! apply, this kernel's defaults and the counters that show whether a setting hurts now,
//! and says what contradicts what. It only reads.
//!
//! ```text
//! collect -> snapshot (plain data) -> engine + rules (pure) -> report -> text, JSON, metrics
//! ```
//!
//! Blind: what is set per socket (`SO_RCVBUF`, `TCP_CONGESTION`), per route, or by BPF.

pub mod collect;
mod counters;
pub mod docs;
pub mod engine;
pub mod error;
pub mod finding;
pub mod kernel;
pub mod keys;
pub mod metrics;
pub mod persistent;
pub mod report;
pub mod rules;
pub mod snapshot;
pub mod subject;
#[cfg(test)]
pub(crate) mod tests;
pub mod value;

pub use docs::{explain, key_pages, list, list_keys, page, rule_page, rule_pages};
pub use engine::{Selection, audit};
pub use error::AuditError;
pub use finding::{Basis, Evidence, FixPlace, Severity, Status};
pub use kernel::{Kernel, Version};
pub use keys::{KEYS, Key, Reach};
pub use persistent::Persistent;
pub use report::{
    Finding, Fix, Outcome, Report, SCHEMA_VERSION, Scope, ScopeKind, ScopeState, Style, Totals,
    write_junit, write_sarif, write_text,
};
pub use rules::{Rule, find as find_rule};
pub use value::{Kind, Reading, SecretState};

/// The settings whose names match `pattern`: a full name, its last part, or a part with `*`.
///
/// # Errors
/// When none does.
pub fn select_keys(pattern: &str) -> Result<Vec<&'static str>, AuditError> {
    let unknown = || AuditError::UnknownKey {
        key: pattern.to_owned(),
    };
    let glob = glob::Pattern::new(&persistent::normalize(pattern)).map_err(|_| unknown())?;
    let found: Vec<&'static str> = KEYS
        .iter()
        .map(|key| key.name)
        .filter(|name| {
            let last = name.rsplit('.').next().unwrap_or(name);
            glob.matches(name) || glob.matches(last)
        })
        .collect();
    if found.is_empty() {
        Err(unknown())
    } else {
        Ok(found)
    }
}
