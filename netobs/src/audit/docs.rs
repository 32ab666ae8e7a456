//! The rules' documentation, as `explain` prints it and as a page.

use std::fmt::Write as _;

use serde::Serialize;

use crate::audit::error::AuditError;
use crate::audit::kernel::Version;
use crate::audit::keys;
use crate::audit::rules::{self, Applies, Rule};

/// A rule's documentation, for programs.
#[derive(Debug, Serialize)]
pub struct RulePage {
    id: &'static str,
    title: &'static str,
    /// The gravest it can get.
    severity: &'static str,
    applies_to: &'static str,
    settings: &'static [&'static str],
    checks: &'static str,
    why: &'static str,
    evidence: &'static str,
    suggestion: &'static str,
    ignore: &'static str,
    sources: &'static [&'static str],
}

/// A setting that is read, for programs.
#[derive(Debug, Serialize)]
pub struct KeyPage {
    key: &'static str,
    one_per: &'static str,
    for_pods: &'static str,
    /// Documented defaults, oldest first; empty where there is none that holds everywhere.
    defaults: Vec<DefaultSince>,
}

#[derive(Debug, Serialize)]
struct DefaultSince {
    /// The kernel's version; none: always.
    since: Option<String>,
    value: &'static str,
}

fn rule(id: &str) -> Result<&'static Rule, AuditError> {
    rules::find(id).ok_or_else(|| AuditError::UnknownRule {
        id: id.chars().take(64).collect(),
    })
}

/// What `netobs audit explain ID --json` prints.
///
/// # Errors
/// When no rule has that id.
pub fn rule_page(id: &str) -> Result<RulePage, AuditError> {
    rule(id).map(RulePage::of)
}

/// What `netobs audit list --json` prints.
#[must_use]
pub fn rule_pages() -> Vec<RulePage> {
    rules::all().map(RulePage::of).collect()
}

/// What `netobs audit list --keys --json` prints.
#[must_use]
pub fn key_pages() -> Vec<KeyPage> {
    keys::KEYS.iter().map(KeyPage::of).collect()
}

impl RulePage {
    fn of(rule: &'static Rule) -> Self {
        let doc = &rule.doc;
        Self {
            id: rule.id,
            title: rule.title,
            severity: rule.severity.as_str(),
            applies_to: where_(rule),
            settings: rule.keys,
            checks: doc.checks,
            why: doc.why,
            evidence: doc.evidence,
            suggestion: doc.suggestion,
            ignore: doc.ignore,
            sources: doc.sources,
        }
    }
}

impl KeyPage {
    fn of(key: &'static keys::Key) -> Self {
        let since = |version| (version != Version(0, 0)).then(|| format!("{version}"));
        Self {
            key: key.name,
            one_per: one_per(key.reach),
            for_pods: key.place.phrase(),
            defaults: key
                .defaults
                .iter()
                .map(|&(version, value)| DefaultSince {
                    since: since(version),
                    value,
                })
                .collect(),
        }
    }
}

/// The text of `netobs audit explain ID`.
///
/// # Errors
/// When no rule has that id.
pub fn explain(id: &str) -> Result<String, AuditError> {
    let rule = rule(id)?;
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

/// The text of `netobs audit list --keys`: one setting a line.
#[must_use]
pub fn list_keys() -> String {
    keys::KEYS
        .iter()
        .map(|key| format!("{:<52}  per {}\n", key.name, one_per(key.reach)))
        .collect()
}

fn one_per(reach: keys::Reach) -> &'static str {
    match reach {
        keys::Reach::Namespace => "namespace",
        keys::Reach::Inherited => "namespace, copied from the host at birth",
        keys::Reach::Node => "node",
    }
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
        let reach = one_per(key.reach);
        let defaults: Vec<String> = key
            .defaults
            .iter()
            .map(|(since, value)| {
                let value = if value.is_empty() { "(empty)" } else { value };
                if *since == Version(0, 0) {
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
