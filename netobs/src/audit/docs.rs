//! The rules' documentation, as `explain` prints it and as a page.

use std::fmt::Write as _;

use crate::audit::error::AuditError;
use crate::audit::keys;
use crate::audit::rules::{self, Applies, Rule};

/// The text of `netobs audit explain ID`.
///
/// # Errors
/// When no rule has that id.
pub fn explain(id: &str) -> Result<String, AuditError> {
    let rule = rules::find(id).ok_or_else(|| AuditError::UnknownRule {
        id: id.chars().take(64).collect(),
    })?;
    let mut text = format!("{}: {}\n", rule.id, rule.title);
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        text,
        "at most {}, {}\n",
        rule.severity.as_str(),
        where_(rule)
    );
    for (heading, body) in sections(rule) {
        let _ = writeln!(text, "{heading}\n{}\n", wrap(body, 76, "  "));
    }
    let _ = writeln!(text, "Settings");
    for key in named(rule) {
        let _ = writeln!(text, "  {key}");
    }
    let _ = writeln!(text, "\nKernel source and documents");
    for source in rule.doc.sources {
        let _ = writeln!(text, "  {source}");
    }
    Ok(text)
}

/// The text of `netobs audit list`: one rule a line.
#[must_use]
pub fn list() -> String {
    rules::all()
        .map(|rule| {
            format!(
                "{}  {:<8}  {}\n",
                rule.id,
                rule.severity.as_str(),
                rule.title
            )
        })
        .collect()
}

/// The documentation page, `docs/sysctl-rules.md`.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "<!-- Generated from netobs/src/audit. Regenerate: NETOBS_BLESS=1 cargo test -p netobs audit -->\n\
         # The rules of `netobs audit`\n\n\
         A finding rests on *evidence* (a counter that moved in the window, a state seen now) or is\n\
         *advice*. The severity below is the gravest a rule can get; most get there with evidence only.\n\
         `netobs audit explain ID` prints the same text.\n\n\
         | rule | severity | where | title |\n|---|---|---|---|\n",
    );
    for rule in rules::all() {
        let anchor = rule.id.to_ascii_lowercase();
        let _ = writeln!(
            page,
            "| [{}](#{anchor}) | {} | {} | {} |",
            rule.id,
            rule.severity.as_str(),
            where_(rule),
            rule.title
        );
    }
    for rule in rules::all() {
        let _ = writeln!(page, "\n## {}\n\n**{}**\n", rule.id, rule.title);
        for (heading, body) in sections(rule) {
            let _ = writeln!(page, "**{heading}.** {body}\n");
        }
        let settings: Vec<String> = named(rule).iter().map(|k| format!("`{k}`")).collect();
        let _ = writeln!(page, "**Settings.** {}\n", settings.join(", "));
        let _ = writeln!(
            page,
            "**Kernel source and documents.** {}",
            rule.doc.sources.join("; ")
        );
    }
    let _ = writeln!(
        page,
        "\n## Settings that are read\n\n| setting | one per | for pods | default (since) |\n|---|---|---|---|"
    );
    for key in keys::KEYS {
        let reach = match key.reach {
            keys::Reach::Namespace => "namespace",
            keys::Reach::Inherited => "namespace, copied from the host at birth",
            keys::Reach::Node => "node",
        };
        let defaults: Vec<String> = key
            .defaults
            .iter()
            .map(|(since, value)| {
                let value = if value.is_empty() { "(empty)" } else { value };
                if *since == crate::audit::kernel::Version(0, 0) {
                    value.to_owned()
                } else {
                    format!("{value} ({since})")
                }
            })
            .collect();
        let defaults = if defaults.is_empty() {
            "-".to_owned()
        } else {
            defaults.join(", ")
        };
        let _ = writeln!(
            page,
            "| `{}` | {reach} | {} | {defaults} |",
            key.name,
            key.place.phrase()
        );
    }
    page
}

fn sections(rule: &Rule) -> [(&'static str, &'static str); 5] {
    let doc = &rule.doc;
    [
        ("What it checks", doc.checks),
        ("Why it matters", doc.why),
        ("Evidence", doc.evidence),
        ("Suggestion", doc.suggestion),
        ("When to ignore", doc.ignore),
    ]
}

fn where_(rule: &Rule) -> &'static str {
    match rule.applies {
        Applies::Namespace => "every namespace",
        Applies::OtherNamespace => "namespaces other than the host's",
        Applies::Node => "the node",
        Applies::Persistent => "persistent files",
    }
}

/// A rule about any setting says so instead of listing all.
fn named(rule: &Rule) -> &'static [&'static str] {
    if rule.keys.len() == keys::KEYS.len() {
        &["every setting that is read"]
    } else {
        rule.keys
    }
}

fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(format!("{indent}{line}"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(format!("{indent}{line}"));
    lines.join("\n")
}
