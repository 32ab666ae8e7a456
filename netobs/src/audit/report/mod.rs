//! What an audit came to, as it is printed and published.
//!
//! The JSON form is a contract: `docs/audit-report.schema.json` describes it, and
//! `schema_version` grows when a field changes its meaning or goes away. New fields may
//! appear at any time.

mod fix;
mod junit;
mod sarif;
mod text;

use serde::Serialize;

use crate::audit::error::AuditError;
use crate::audit::finding::{Basis, Evidence, Severity, Status};
use crate::audit::snapshot::{Namespace, State};

pub use fix::Fix;
pub use junit::write as write_junit;
pub use sarif::write as write_sarif;
pub use text::{Style, write as write_text};

/// Version of the JSON form.
pub const SCHEMA_VERSION: u32 = 1;
/// Id of findings that only say that something could not be read.
pub const UNREADABLE_ID: &str = "NETOBS-TCP-000";

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this form.
    pub schema_version: u32,
    /// Version of netobs.
    pub netobs_version: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// True when something could not be read, so that nothing more than "no finding" can
    /// be said about it.
    pub partial: bool,
    /// Length of the window over which counters were watched; null when there was none.
    pub window_seconds: Option<f64>,
    /// Counts.
    pub totals: Totals,
    /// The namespaces, in the order of the findings.
    pub scopes: Vec<Scope>,
    /// One entry per rule, place and problem.
    pub findings: Vec<Finding>,
}

/// Counts of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Critical findings.
    pub critical: usize,
    /// Warnings.
    pub warning: usize,
    /// Informational findings.
    pub info: usize,
    /// Rules that passed.
    pub pass: usize,
    /// Rules that do not apply.
    pub not_applicable: usize,
    /// Rules and settings that could not be looked at.
    pub unreadable: usize,
}

/// Where a finding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// The host's network namespace.
    Host,
    /// Another network namespace.
    Namespace,
    /// The node as a whole.
    Node,
    /// The persistent files.
    Persistent,
}

impl ScopeKind {
    /// The kind of a namespace.
    #[must_use]
    pub fn of(ns: &Namespace) -> Self {
        if ns.host { Self::Host } else { Self::Namespace }
    }
}

/// Whether a namespace could be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeState {
    /// It was.
    Audited,
    /// It went away during the audit.
    Gone,
    /// It could not be entered.
    Unreadable,
}

/// A namespace of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Scope {
    /// Inode number.
    pub netns: u32,
    /// Host or other.
    pub kind: ScopeKind,
    /// Whether it could be looked at.
    pub state: ScopeState,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Short name for readers.
    pub name: String,
    /// A process in it.
    pub pid: Option<u32>,
    /// Its name.
    pub process: Option<String>,
    /// First 12 digits of the container id.
    pub container_id: Option<String>,
    /// Kubernetes pod uid.
    pub pod_uid: Option<String>,
    /// Listening TCP sockets; null where they could not be listed.
    pub listeners: Option<usize>,
}

impl Scope {
    /// What the report says of a namespace.
    #[must_use]
    pub fn of(ns: &Namespace) -> Self {
        let (state, reason) = match &ns.state {
            State::Audited => (ScopeState::Audited, None),
            State::Gone => (ScopeState::Gone, None),
            State::Unreadable(why) => (ScopeState::Unreadable, Some(why.clone())),
        };
        Self {
            netns: ns.inode,
            kind: ScopeKind::of(ns),
            state,
            reason,
            name: ns.name(),
            pid: ns.owner.pid,
            process: ns.owner.process.clone(),
            container_id: ns.owner.container_id.clone(),
            pod_uid: ns.owner.pod_uid.clone(),
            listeners: ns.sockets.as_ref().map(|s| s.listeners.len()),
        }
    }
}

/// A default and where it is known from.
#[derive(Clone, Debug, Serialize)]
pub struct KernelValue {
    /// The value.
    pub value: String,
    /// `fresh_namespace`, `initial_namespace` or `documentation`.
    pub source: &'static str,
}

/// What one rule said in one place.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Stable id of the rule.
    pub id: &'static str,
    /// Its title.
    pub title: &'static str,
    /// How grave it is here; for other statuses, how grave the rule can get.
    pub severity: Severity,
    /// What became of the rule.
    pub status: Status,
    /// What a finding rests on.
    pub basis: Option<Basis>,
    /// Where it holds.
    pub scope: ScopeKind,
    /// Inode of the namespace; null for persistent files.
    pub netns: Option<u32>,
    /// The namespace's name for readers.
    #[serde(rename = "netns_name")]
    pub place: String,
    /// The setting.
    pub key: &'static str,
    /// Its value in force; null where there is none.
    pub value: Option<String>,
    /// The kernel's default, where known.
    pub kernel_default: Option<KernelValue>,
    /// What is wrong, or why there is no verdict.
    pub message: String,
    /// What was expected.
    pub expected: String,
    /// Why it matters.
    pub why: &'static str,
    /// The facts.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub fix: Option<Fix>,
    /// Kernel source and documents.
    pub sources: &'static [&'static str],
}

impl Totals {
    /// Counts `findings`.
    #[must_use]
    pub fn of(findings: &[Finding]) -> Self {
        let mut totals = Self::default();
        for finding in findings {
            let slot = match (finding.status, finding.severity) {
                (Status::Finding, Severity::Critical) => &mut totals.critical,
                (Status::Finding, Severity::Warning) => &mut totals.warning,
                (Status::Finding, Severity::Info) => &mut totals.info,
                (Status::Pass, _) => &mut totals.pass,
                (Status::NotApplicable, _) => &mut totals.not_applicable,
                (Status::Unreadable, _) => &mut totals.unreadable,
            };
            *slot += 1;
        }
        totals
    }
}

/// What a command should return for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing at or above the threshold, and everything was read.
    Fine,
    /// Nothing at or above the threshold, but not everything could be read.
    Partial,
    /// Findings at or above the threshold.
    Findings,
}

impl Report {
    /// Findings only, gravest first within one place.
    pub fn problems(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.status == Status::Finding)
    }

    /// Judges the report against a threshold.
    #[must_use]
    pub fn outcome(&self, fail_on: Severity) -> Outcome {
        if self.problems().any(|f| f.severity >= fail_on) {
            Outcome::Findings
        } else if self.partial {
            Outcome::Partial
        } else {
            Outcome::Fine
        }
    }

    /// The report as one JSON object.
    ///
    /// # Errors
    /// When serialization fails, which no value of this type causes.
    pub fn to_json(&self) -> Result<String, AuditError> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}
