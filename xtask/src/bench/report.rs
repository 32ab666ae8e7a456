//! `docs/performance.md`, written from a record.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::budgets::{self, BUDGETS};
use super::cases::CASES;
use super::record::{Record, number};
use super::table::spread;

/// Writes the report of a record.
pub(super) fn write(record: &Record, path: &Path) -> Result<()> {
    let text = text(record).context("failed to write the report")?;
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

fn text(record: &Record) -> Result<String> {
    let mut text = String::from(
        "# Performance\n\n\
         Written by `cargo xtask bench --write-docs` from `performance.json`; do not edit.\n\n\
         What is compared was measured in turns, in one run, on one machine. Ratios carry over to \
         other machines better than absolute figures; both are medians, with the least and the \
         most beside them.\n\n",
    );
    budgets(&mut text, record)?;
    environment(&mut text, record)?;
    cases(&mut text, record)?;
    text.push_str(
        "\n## How to repeat it\n\n\
         ```sh\n\
         cargo xtask bench --install-peers            # everything; a table\n\
         cargo xtask bench storm idle --quick         # does it work?\n\
         cargo xtask bench --write-docs               # this page anew\n\
         ```\n\n\
         It needs root, network namespaces, veth, TUN and nft, and a machine with nothing else to \
         do. Peers come from the distribution's packages or from crates.io and are not kept here.\n",
    );
    Ok(text)
}

fn budgets(text: &mut String, record: &Record) -> Result<()> {
    text.push_str("## Budgets\n\n");
    text.push_str(
        "| what | budget | netobs | verdict | peer | netobs / peer |\n|---|---|---|---|---|---|\n",
    );
    let verdicts: Vec<_> = budgets::verdicts(record).collect();
    for verdict in &verdicts {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            verdict.budget.what,
            verdict.budget.target(),
            verdict.found(),
            verdict.words(),
            verdict.peers().unwrap_or_default(),
            verdict.to_peer().map_or_else(String::new, number),
        )?;
    }
    let unknown: Vec<&str> = BUDGETS
        .iter()
        .filter(|budget| !verdicts.iter().any(|v| v.budget.what == budget.what))
        .map(|budget| budget.what)
        .collect();
    if !unknown.is_empty() {
        writeln!(text, "\nNot measured: {}.", unknown.join("; "))?;
    }
    text.push_str("\nNo hook is on the path of every packet by default.\n\n");
    text.push_str("What limits each now:\n\n");
    for verdict in &verdicts {
        writeln!(text, "- {}: {}", verdict.budget.what, verdict.budget.limits)?;
    }
    Ok(())
}

fn environment(text: &mut String, record: &Record) -> Result<()> {
    let machine = &record.environment;
    text.push_str("\n## Machine\n\n");
    if record.quick {
        text.push_str("**A quick run: the figures mean little.**\n\n");
    }
    let lines = [
        ("kernel", machine.kernel.clone()),
        ("distribution", machine.distribution.clone()),
        ("CPU", format!("{}, {} cores", machine.cpu, machine.cores)),
        ("memory", format!("{} MB", machine.memory_megabytes)),
        ("load when it began", machine.load.clone()),
        ("netobs", format!("{}, {}", machine.revision, machine.rustc)),
    ];
    for (what, value) in lines {
        writeln!(text, "- {what}: {value}")?;
    }
    for (name, version) in &machine.versions {
        writeln!(text, "- {name}: {version}")?;
    }
    Ok(())
}

fn cases(text: &mut String, record: &Record) -> Result<()> {
    text.push_str("\n## Figures\n");
    for case in CASES {
        let figures: Vec<_> = record
            .figures
            .iter()
            .filter(|figure| figure.case == case.name)
            .collect();
        let absent: Vec<_> = record
            .absent
            .iter()
            .filter(|absent| absent.case == case.name)
            .collect();
        if figures.is_empty() && absent.is_empty() {
            continue;
        }
        writeln!(text, "\n### {}\n\n{}.\n", case.name, sentence(case.about))?;
        if !figures.is_empty() {
            text.push_str("| measure | subject | ratio | median | least to most (runs) | |\n|---|---|---|---|---|---|\n");
        }
        for figure in figures {
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                figure.measure,
                figure.subject,
                figure
                    .ratio
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string),
                figure.unit.show(figure.value.median),
                spread(figure),
                figure.note.as_deref().unwrap_or_default(),
            )?;
        }
        if !absent.is_empty() {
            text.push('\n');
        }
        for absent in absent {
            writeln!(
                text,
                "- {} is absent: {}",
                absent.subject,
                absent.reason.replace(['\n', '|'], " ")
            )?;
        }
    }
    Ok(())
}

/// With a capital letter.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + letters.as_str()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{RECORD, REPORT};
    use crate::workspace;

    #[test]
    fn the_page_is_what_its_record_says() {
        let root = workspace::root();
        if !root.join(RECORD).is_file() {
            eprintln!("skipped: nothing has been measured yet");
            return;
        }
        let record = Record::read(&root.join(RECORD)).unwrap();
        let page = fs::read_to_string(root.join(REPORT)).unwrap();
        assert_eq!(
            page,
            text(&record).unwrap(),
            "`cargo xtask bench --render` writes it anew"
        );
    }
}
