//! The report for readers: grouped by namespace, gravest first.

use std::io::{self, Write};

use crate::audit::finding::{Basis, Severity, Status};
use crate::audit::report::{Finding, Report, ScopeKind, ScopeState};

/// How to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Colours, for terminals.
    pub colour: bool,
    /// Also what passed and what does not apply.
    pub all: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    fn severity(self, severity: Severity) -> String {
        let (code, word) = match severity {
            Severity::Critical => ("1;31", "CRITICAL"),
            Severity::Warning => ("33", "WARNING "),
            Severity::Info => ("36", "INFO    "),
        };
        self.paint(code, word)
    }
}

/// Writes `report`.
///
/// # Errors
/// When `out` fails.
pub fn write(report: &Report, style: Style, out: &mut impl Write) -> io::Result<()> {
    let window = report.window_seconds.map_or_else(
        || "no window: what rests on counters is advice".to_owned(),
        |s| format!("counters watched for {s:.1} s"),
    );
    let namespaces = counted(report.scopes.len(), "network namespace");
    writeln!(out, "kernel {}, {namespaces}, {window}", report.kernel)?;
    for scope in &report.scopes {
        let title = format!("{} (netns {})", scope.name, scope.netns);
        let here: Vec<&Finding> = report
            .findings
            .iter()
            .filter(|f| f.netns == Some(scope.netns) && f.scope != ScopeKind::Persistent)
            .collect();
        match scope.state {
            ScopeState::Gone => {
                writeln!(
                    out,
                    "\n{}: went away during the audit",
                    style.paint("1", &title)
                )?;
            }
            ScopeState::Unreadable => {
                let why = scope.reason.as_deref().unwrap_or("");
                writeln!(
                    out,
                    "\n{}: could not be entered: {why}",
                    style.paint("1", &title)
                )?;
            }
            ScopeState::Audited => group(&title, &here, style, out)?,
        }
    }
    let files: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|f| f.scope == ScopeKind::Persistent)
        .collect();
    if !files.is_empty() {
        group("persistent files", &files, style, out)?;
    }
    let t = report.totals;
    writeln!(
        out,
        "\n{} critical, {}, {} informational; {} passed, {} not applicable, {} unreadable",
        t.critical,
        counted(t.warning, "warning"),
        t.info,
        t.pass,
        t.not_applicable,
        t.unreadable
    )?;
    if report.partial {
        let partial = style.paint("1;33", "partial:");
        writeln!(
            out,
            "{partial} not everything could be read, so this is not a clean bill"
        )?;
    }
    Ok(())
}

/// A number of things: `1 warning`, `2 warnings`.
fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

fn group(title: &str, findings: &[&Finding], style: Style, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\n{}", style.paint("1", title))?;
    let mut shown: Vec<&&Finding> = findings
        .iter()
        .filter(|f| f.status == Status::Finding)
        .collect();
    shown.sort_by_key(|f| std::cmp::Reverse((f.severity, f.basis == Some(Basis::Evidence))));
    for finding in &shown {
        problem(finding, style, out)?;
    }
    let unreadable = findings.iter().filter(|f| f.status == Status::Unreadable);
    for finding in unreadable.clone() {
        let word = style.paint("35", "UNREAD  ");
        let about = if finding.key.is_empty() {
            String::new()
        } else {
            format!("{}: ", finding.key)
        };
        writeln!(out, "  {word} {}  {about}{}", finding.id, finding.message)?;
    }
    if style.all {
        for finding in findings {
            let word = match finding.status {
                Status::Pass => "pass    ",
                Status::NotApplicable => "n/a     ",
                Status::Finding | Status::Unreadable => continue,
            };
            let reason = if finding.message.is_empty() {
                String::new()
            } else {
                format!(": {}", finding.message)
            };
            writeln!(out, "  {word} {}  {}{reason}", finding.id, finding.title)?;
        }
    } else if shown.is_empty() && unreadable.count() == 0 {
        writeln!(out, "  no findings")?;
    }
    Ok(())
}

fn problem(finding: &Finding, style: Style, out: &mut impl Write) -> io::Result<()> {
    let about = if finding.key.is_empty() {
        finding.title.to_owned()
    } else {
        let value = finding.value.as_deref().unwrap_or("(none)");
        let default = finding.kernel_default.as_ref();
        let default = default.map_or_else(String::new, |d| format!(" (default {})", d.value));
        format!("{} = {value}{default}", finding.key)
    };
    writeln!(
        out,
        "  {} {}  {about}",
        style.severity(finding.severity),
        finding.id
    )?;
    let mut line = |label: &str, text: &str| writeln!(out, "           {label:<9} {text}");
    line("problem", &finding.message)?;
    line("expected", &finding.expected)?;
    for fact in &finding.evidence {
        let label = if fact.live { "evidence" } else { "context" };
        // Counters carry their own name.
        if fact.text.starts_with(&fact.source) {
            line(label, &fact.text)?;
        } else {
            line(label, &format!("{}: {}", fact.source, fact.text))?;
        }
    }
    if finding.basis == Some(Basis::Advice) {
        line("basis", "advice: nothing seen shows that it hurts now")?;
    }
    if let Some(fix) = &finding.fix {
        line("fix in", fix.place.phrase())?;
        if !fix.advice.is_empty() {
            line("", &fix.advice)?;
        }
        for way in [&fix.command, &fix.persistent, &fix.pod_yaml]
            .into_iter()
            .flatten()
        {
            line("", way)?;
        }
    }
    Ok(())
}
