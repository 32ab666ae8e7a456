//! The report as JUnit XML, for build servers: one suite per place, one case per result.

use std::fmt::Write as _;

use crate::audit::finding::{Severity, Status};
use crate::audit::report::{Finding, Report, ScopeKind};

/// Writes `report`; findings at or above `fail_on` are failures.
#[must_use]
pub fn write(report: &Report, fail_on: Severity) -> String {
    let mut places: Vec<String> = Vec::new();
    for finding in &report.findings {
        let place = place(finding);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"netobs audit\">\n",
    );
    for name in places {
        let cases: Vec<&Finding> = report
            .findings
            .iter()
            .filter(|f| place(f) == name)
            .collect();
        let count = |is: &dyn Fn(&Finding) -> bool| cases.iter().filter(|f| is(f)).count();
        // Writing to a String cannot fail.
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">",
            escape(&name),
            cases.len(),
            count(&|f| f.status == Status::Finding && f.severity >= fail_on),
            count(&|f| f.status == Status::Unreadable),
            count(&|f| f.status == Status::NotApplicable),
        );
        for case in cases {
            let head = format!(
                "name=\"{} {}\" classname=\"{}\"",
                case.id,
                escape(case.key),
                escape(&name)
            );
            let message = escape(&case.message);
            let body = match case.status {
                Status::Finding if case.severity >= fail_on => {
                    format!(
                        "<failure type=\"{}\" message=\"{message}\"/>",
                        case.severity.as_str()
                    )
                }
                Status::Finding => format!("<system-out>{message}</system-out>"),
                Status::Unreadable => format!("<error message=\"{message}\"/>"),
                Status::NotApplicable => format!("<skipped message=\"{message}\"/>"),
                Status::Pass => String::new(),
            };
            let _ = writeln!(xml, "    <testcase {head}>{body}</testcase>");
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn place(finding: &Finding) -> String {
    match (finding.scope, finding.netns) {
        (ScopeKind::Persistent, _) | (_, None) => "persistent files".to_owned(),
        (_, Some(netns)) => format!("{} (netns {netns})", finding.place),
    }
}

/// Escapes text for XML 1.0, which has no place at all for most control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(' '),
            c if c.is_control() || c == '\u{fffe}' || c == '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
