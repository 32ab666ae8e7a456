//! A diagnosis for people.

use std::fmt::Write as _;

use super::{Diagnosis, Finding, Source, finding::count};
use crate::audit::finding::Severity;

/// Plain text; `colour` for a terminal. (Writing to a string cannot fail.)
#[must_use]
pub fn text(diagnosis: &Diagnosis, colour: bool) -> String {
    let mut out = String::new();
    let paint = |severity: Severity| match (colour, severity) {
        (false, _) => ("", ""),
        (true, Severity::Critical) => ("\x1b[31;1m", "\x1b[0m"),
        (true, Severity::Warning) => ("\x1b[33;1m", "\x1b[0m"),
        (true, Severity::Info) => ("\x1b[36m", "\x1b[0m"),
    };
    for (number, finding) in diagnosis.findings.iter().enumerate() {
        let (on, off) = paint(finding.severity);
        let _ = writeln!(
            out,
            "{}. {on}{}{off} {}",
            number + 1,
            finding.severity.as_str().to_uppercase(),
            finding.summary
        );
        for (name, lines) in parts(finding) {
            for (index, line) in lines.iter().enumerate() {
                let head = if index == 0 { name } else { "" };
                let _ = writeln!(out, "   {head:<9} {line}");
            }
        }
        out.push('\n');
    }
    let _ = writeln!(out, "{}", verdict(diagnosis));
    if !diagnosis.healthy.is_empty() {
        out.push_str("\nLooked at and well\n");
        for healthy in &diagnosis.healthy {
            let _ = writeln!(out, "  - {}", healthy.looked_at);
        }
    }
    if !diagnosis.not_seen.is_empty() {
        out.push_str("\nNot, or not fully, seen here\n");
        for gap in &diagnosis.not_seen {
            let _ = writeln!(out, "  - {}: {}", gap.what, gap.why);
        }
    }
    out
}

/// Markdown, to paste into an incident report.
#[must_use]
pub fn markdown(diagnosis: &Diagnosis) -> String {
    let mut out = format!("# netobs diagnose\n\n{}\n", verdict(diagnosis));
    for finding in &diagnosis.findings {
        let _ = writeln!(
            out,
            "\n## {}: {}\n",
            finding.severity.as_str(),
            escape(&finding.summary)
        );
        for (name, lines) in parts(finding) {
            let _ = writeln!(out, "- **{name}**");
            for line in lines {
                let _ = writeln!(out, "  - {}", escape(&line));
            }
        }
    }
    if !diagnosis.healthy.is_empty() {
        out.push_str("\n## Looked at and well\n\n");
        for healthy in &diagnosis.healthy {
            let _ = writeln!(out, "- {}", healthy.looked_at);
        }
    }
    if !diagnosis.not_seen.is_empty() {
        out.push_str("\n## Not, or not fully, seen here\n\n");
        for gap in &diagnosis.not_seen {
            let _ = writeln!(out, "- {}: {}", escape(&gap.what), escape(&gap.why));
        }
    }
    out
}

fn parts(finding: &Finding) -> impl Iterator<Item = (&'static str, Vec<String>)> {
    let who = finding.who();
    [
        (
            "who",
            if who.is_empty() {
                Vec::new()
            } else {
                vec![who]
            },
        ),
        ("evidence", finding.evidence.clone()),
        ("cause", finding.cause.clone()),
        ("do", finding.remedy.clone()),
        ("stories", finding.stories.clone()),
    ]
    .into_iter()
    .filter(|(_, lines)| !lines.is_empty())
}

/// The result in one sentence, and what it rests on in another.
fn verdict(diagnosis: &Diagnosis) -> String {
    let findings = match diagnosis.findings.len() {
        0 => "Nothing wrong was seen.".to_owned(),
        findings => format!("{}.", count(findings as u64, "finding")),
    };
    let window = format!("{:.0} s", diagnosis.window_seconds);
    let namespaces = count(diagnosis.namespaces as u64, "network namespace");
    let listeners = count(diagnosis.listeners as u64, "TCP listener");
    match diagnosis.source {
        Source::Watched => {
            let at = diagnosis
                .since
                .as_deref()
                .map(|since| format!(" from {since} on"));
            format!(
                "{findings} Watched for {window}{}: {namespaces} with {listeners}.",
                at.unwrap_or_default()
            )
        }
        Source::Recorded => {
            let events = count(diagnosis.events.unwrap_or(0), "recorded event");
            let span = match (&diagnosis.since, &diagnosis.until) {
                (Some(since), Some(until)) => format!(" from {since} to {until}"),
                _ => String::new(),
            };
            format!("{findings} Read {events}{span}, of {namespaces}.")
        }
    }
}

/// Names are hostile: nothing in them may become markup.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(
            character,
            '*' | '_' | '`' | '[' | ']' | '<' | '>' | '|' | '#' | '\\'
        ) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}
