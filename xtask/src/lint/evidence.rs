//! The threat model (`docs/security.md`) names a test for every line of its tables, and the tests
//! that it names exist.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The page, from the workspace's root.
const PAGE: &str = "docs/security.md";
/// The column of its tables that names tests.
const COLUMN: &str = "shown by";

/// Lists lines that show nothing, and tests that are not there.
pub(super) fn check() -> Result<()> {
    let root = workspace::root();
    let page =
        fs::read_to_string(root.join(PAGE)).with_context(|| format!("failed to read {PAGE}"))?;
    let mut sources = Vec::new();
    let mut paths = workspace::files(&root.join("netobs"))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    for path in paths {
        let text = fs::read_to_string(&path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        sources.push((path.to_string_lossy().into_owned(), text));
    }
    let findings = findings(&page, &sources);
    if !findings.is_empty() {
        bail!("{PAGE}:\n  {}", findings.join("\n  "));
    }
    Ok(())
}

/// `sources`: each file's path and text.
fn findings(page: &str, sources: &[(String, String)]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut in_table = false;
    for (index, line) in page.lines().enumerate() {
        let number = index + 1;
        let named: Vec<(&str, &str)> = line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter_map(test)
            .collect();
        for (place, name) in &named {
            if !sources
                .iter()
                .any(|(path, text)| path.contains(place) && is_test(text, name))
            {
                findings.push(format!("{number}: there is no test {name} in {place}"));
            }
        }
        let row = line.starts_with('|');
        let head = row && line.contains(COLUMN);
        let rule = line.starts_with("|---");
        if in_table && row && !rule && named.is_empty() {
            findings.push(format!("{number}: no test shows this"));
        }
        in_table = head || (in_table && row);
    }
    findings
}

/// The place and the name of a test, from `place: name` or `place::tests::name`.
fn test(words: &str) -> Option<(&str, &str)> {
    let (place, name) = words
        .split_once(": ")
        .or_else(|| words.split_once("::tests::"))?;
    let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(part)).then_some((place, name))
}

/// Whether a text defines a test of that name.
fn is_test(text: &str, name: &str) -> bool {
    text.match_indices(&format!("fn {name}(")).any(|(at, _)| {
        let before = text.get(..at).unwrap_or_default();
        let line = before.rfind('\n').unwrap_or_default();
        let above = before.get(..line).unwrap_or_default();
        (above.lines().rev())
            .take_while(|line| line.trim_start().starts_with("#["))
            .any(|line| line.contains("test"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str =
        "#[test]\nfn one() {}\n    #[tokio::test]\n    async fn two() {}\nfn three() {}\n";

    fn found(page: &str) -> Vec<String> {
        findings(
            page,
            &[("netobs/tests/web.rs".to_owned(), SOURCE.to_owned())],
        )
    }

    #[test]
    fn tests_that_exist_are_taken() {
        let page = "| he | gets | shown by |\n|---|---|---|\n| a | b | `web.rs: one` |\n\
                    | a | b | `web::tests::two`, and `words` |\n\n| other | table |\n|---|---|\n";
        assert!(found(page).is_empty(), "{:?}", found(page));
    }

    #[test]
    fn tests_that_do_not_and_rows_without_any_are_named() {
        let page = "| he | shown by |\n|---|---|\n| a | `web.rs: three` |\n| b | `web` |\n\
                    \n(`kernel: one`)\n";
        assert_eq!(
            found(page),
            [
                "3: there is no test three in web.rs",
                "4: no test shows this",
                "6: there is no test one in kernel",
            ]
        );
    }
}
