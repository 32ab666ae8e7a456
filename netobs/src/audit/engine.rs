//! Applies the rules to a machine and writes down what they said.

use crate::audit::finding::{Problem, Severity, Status};
use crate::audit::keys;
use crate::audit::report::{
    self, Finding, Fix, KernelValue, Report, SCHEMA_VERSION, Scope, ScopeKind, Totals,
};
use crate::audit::rules::{self, Applies, Rule};
use crate::audit::snapshot::{Machine, Namespace, State};
use crate::audit::subject::{Skip, Subject};
use crate::audit::value::Reading;

/// Which rules to apply.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only rules about these settings; empty for all.
    pub keys: Vec<&'static str>,
}

impl Selection {
    fn takes(&self, rule: &Rule) -> bool {
        self.keys.is_empty() || rule.keys.iter().any(|k| self.keys.contains(k))
    }

    fn keeps(&self, key: &str) -> bool {
        self.keys.is_empty() || self.keys.contains(&key)
    }
}

/// Audits `machine`. Pure: it reads nothing but its arguments.
#[must_use]
pub fn audit(machine: &Machine, selection: &Selection) -> Report {
    let mut findings = Vec::new();
    for ns in machine.selected().filter(|ns| ns.state == State::Audited) {
        let subject = Subject { machine, ns };
        for rule in rules::all().filter(|rule| selection.takes(rule)) {
            let (applies, scope) = match rule.applies {
                Applies::Namespace => (true, ScopeKind::of(ns)),
                Applies::OtherNamespace => (!ns.host, ScopeKind::of(ns)),
                Applies::Node => (ns.host, ScopeKind::Node),
                Applies::Persistent => (ns.host, ScopeKind::Persistent),
            };
            if applies {
                apply(rule, subject, scope, selection, &mut findings);
            }
        }
    }
    let mut unreadable = unreadable(machine, selection, &findings);
    findings.append(&mut unreadable);
    let scopes: Vec<Scope> = machine.selected().map(Scope::of).collect();
    let partial = findings.iter().any(|f| f.status == Status::Unreadable)
        || scopes
            .iter()
            .any(|s| s.state == report::ScopeState::Unreadable);
    let totals = Totals::of(&findings);
    let window = machine.selected().find_map(|ns| ns.counters.length);
    Report {
        schema_version: SCHEMA_VERSION,
        netobs_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: machine.kernel.release().to_owned(),
        partial,
        window_seconds: window.map(|w| w.as_secs_f64()),
        totals,
        scopes,
        findings,
    }
}

/// The setting a rule is about; none where it is about all of them.
fn subject_of(rule: &Rule) -> &'static str {
    let all = rule.keys.len() == keys::KEYS.len();
    rule.keys
        .first()
        .filter(|_| !all)
        .copied()
        .unwrap_or_default()
}

fn apply(
    rule: &'static Rule,
    subject: Subject<'_>,
    scope: ScopeKind,
    selection: &Selection,
    findings: &mut Vec<Finding>,
) {
    let blank = || Finding {
        id: rule.id,
        title: rule.title,
        severity: rule.severity,
        status: Status::Pass,
        basis: None,
        scope,
        netns: (!matches!(scope, ScopeKind::Persistent)).then_some(subject.ns.inode),
        place: subject.ns.name(),
        key: subject_of(rule),
        value: None,
        kernel_default: None,
        message: String::new(),
        expected: String::new(),
        why: rule.doc.why,
        evidence: Vec::new(),
        fix: None,
        sources: rule.doc.sources,
    };
    match (rule.check)(&subject) {
        Ok(problems) if problems.is_empty() => findings.push(blank()),
        Ok(problems) => {
            let before = findings.len();
            for problem in problems.into_iter().filter(|p| selection.keeps(p.key)) {
                findings.push(finding(blank(), problem, subject));
            }
            if findings.len() == before {
                findings.push(blank());
            }
        }
        Err(Skip::NotApplicable(reason)) => {
            findings.push(Finding {
                status: Status::NotApplicable,
                message: reason,
                ..blank()
            });
        }
        Err(Skip::Unreadable { key, reason }) => findings.push(Finding {
            status: Status::Unreadable,
            key: if key.is_empty() {
                subject_of(rule)
            } else {
                key
            },
            message: reason,
            ..blank()
        }),
    }
}

fn finding(blank: Finding, problem: Problem, subject: Subject<'_>) -> Finding {
    let basis = problem.basis();
    let default = subject.default_of(problem.key);
    Finding {
        severity: problem.severity,
        status: Status::Finding,
        basis: Some(basis),
        key: problem.key,
        value: subject.reading(problem.key).value(),
        kernel_default: default.map(|d| KernelValue {
            value: d.value,
            source: d.source,
        }),
        fix: Some(Fix::of(&problem, subject)),
        message: problem.message,
        expected: problem.expected,
        evidence: problem.evidence,
        ..blank
    }
}

/// Settings no rule came across, and files, that are there and could not be read.
fn unreadable(machine: &Machine, selection: &Selection, said: &[Finding]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let bare = |ns: &Namespace, scope, key, message| Finding {
        id: report::UNREADABLE_ID,
        title: "Could not be read",
        severity: Severity::Warning,
        status: Status::Unreadable,
        basis: None,
        scope,
        netns: (!matches!(scope, ScopeKind::Persistent)).then_some(ns.inode),
        place: ns.name(),
        key,
        value: None,
        kernel_default: None,
        message,
        expected: String::new(),
        why: "What was not looked at has not passed.",
        evidence: Vec::new(),
        fix: None,
        sources: &[],
    };
    for ns in machine.selected() {
        for what in &ns.unread {
            let message = format!("{what} could not be read");
            findings.push(bare(ns, ScopeKind::of(ns), "", message));
        }
        for (name, reading) in &ns.settings {
            let Some(key) = keys::find(name).filter(|k| selection.keeps(k.name)) else {
                continue;
            };
            let reason = match reading {
                Reading::Unreadable(reason) => reason.clone(),
                Reading::Malformed => "its value is not of the known form".to_owned(),
                _ => continue,
            };
            let already = said.iter().any(|f| {
                f.status == Status::Unreadable && f.netns == Some(ns.inode) && f.key == key.name
            });
            if !already {
                findings.push(bare(ns, ScopeKind::of(ns), key.name, reason));
            }
        }
    }
    if machine.hidden_processes > 0 {
        let (who, do_not) = match machine.hidden_processes {
            1 => ("1 process".to_owned(), "does not"),
            more => (format!("{more} processes"), "do not"),
        };
        let message = format!(
            "{who} {do_not} show the network namespace (that takes CAP_SYS_PTRACE, and no security module against it): there may be more namespaces than these",
        );
        findings.push(bare(&machine.host, ScopeKind::Node, "", message));
    }
    if machine.host.selected {
        for (path, reason) in machine.persistent.unreadable() {
            let message = format!("{path} could not be read: {reason}");
            findings.push(bare(&machine.host, ScopeKind::Persistent, "", message));
        }
    }
    findings
}
