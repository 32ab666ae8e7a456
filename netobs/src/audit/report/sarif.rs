//! Findings about the persistent files as SARIF 2.1.0, for code scanning.
//!
//! SARIF points at lines of files, so only findings that have one are in it.

use serde_json::{Value, json};

use crate::audit::error::AuditError;
use crate::audit::finding::{Severity, Status};
use crate::audit::report::{Finding, Report, ScopeKind};
use crate::audit::rules::{self, Applies};

/// Writes the findings of `report` about files.
///
/// # Errors
/// When serialization fails, which no report causes.
pub fn write(report: &Report) -> Result<String, AuditError> {
    let results: Vec<Value> = report
        .findings
        .iter()
        .filter(|f| f.scope == ScopeKind::Persistent && f.status == Status::Finding)
        .filter_map(result)
        .collect();
    let rules: Vec<Value> = rules::all()
        .filter(|rule| rule.applies == Applies::Persistent)
        .map(|rule| {
            json!({
                "id": rule.id,
                "shortDescription": {"text": rule.title},
                "fullDescription": {"text": rule.doc.why},
                "help": {"text": rule.doc.suggestion},
            })
        })
        .collect();
    let sarif = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "netobs", "version": report.netobs_version, "rules": rules}},
            "results": results,
        }],
    });
    let mut text = serde_json::to_string_pretty(&sarif)?;
    text.push('\n');
    Ok(text)
}

fn result(finding: &Finding) -> Option<Value> {
    let locations: Vec<Value> = finding
        .evidence
        .iter()
        .filter_map(|fact| {
            let (path, line) = fact.source.rsplit_once(':')?;
            let line: u32 = line.parse().ok()?;
            Some(json!({"physicalLocation": {
                "artifactLocation": {"uri": format!("file://{}", uri(path))},
                "region": {"startLine": line},
            }}))
        })
        .collect();
    if locations.is_empty() {
        return None;
    }
    let level = match finding.severity {
        Severity::Critical => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    };
    let message = format!("{}: {}", finding.key, finding.message);
    Some(json!({
        "ruleId": finding.id,
        "level": level,
        "message": {"text": message},
        "locations": locations,
    }))
}

/// Percent-encodes what a path may hold and a URI may not.
fn uri(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
