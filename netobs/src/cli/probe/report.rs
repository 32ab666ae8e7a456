//! What `netobs probe` prints.

use std::{
    io::{self, IsTerminal, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use crate::path::{self, Measurement, Plan, Style, Summary};

/// Where a terminal does not tell its width.
const WIDTH: usize = 100;

/// A line of JSON.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Measurement(&'a Measurement),
    Summary(&'a Summary),
}

/// What is printed, and what is kept for the end.
pub(super) struct Report {
    json: bool,
    /// Whether there is one measurement of each target: shown in full at once.
    single: bool,
    style: Style,
    summaries: Vec<Summary>,
    slowest: Vec<Option<Measurement>>,
    /// Whether stdout is still read.
    open: bool,
}

impl Report {
    pub(super) fn new(json: bool, single: bool, plans: &[Plan]) -> anyhow::Result<Self> {
        let terminal = io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let columns = std::env::var("COLUMNS")
            .ok()
            .and_then(|columns| columns.parse().ok());
        let told = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let summaries = plans
            .iter()
            .map(|plan| Summary::new(&plan.name, plan.ip_version.name()))
            .collect::<Option<_>>();
        Ok(Self {
            json,
            single,
            style: Style {
                width: told.or(columns).unwrap_or(WIDTH),
                colour: terminal && !plain,
            },
            summaries: summaries.ok_or_else(|| anyhow!("failed to make a summary"))?,
            slowest: plans.iter().map(|_| None).collect(),
            open: true,
        })
    }

    /// Prints a measurement and counts it in; `false` when nobody reads any more.
    pub(super) fn take(&mut self, index: usize, measurement: Measurement) -> anyhow::Result<bool> {
        if let Some(summary) = self.summaries.get_mut(index) {
            summary.add(&measurement);
        }
        let text = if self.json {
            json(&Line::Measurement(&measurement))?
        } else if self.single {
            path::waterfall(&measurement, self.style)
        } else {
            path::line(&measurement, self.style)
        };
        if let Some(slowest) = self.slowest.get_mut(index)
            && slowest
                .as_ref()
                .is_none_or(|slowest| slowest.phases.total < measurement.phases.total)
        {
            *slowest = Some(measurement);
        }
        self.print(&text)?;
        Ok(self.open)
    }

    /// Prints what is to be said of all, and says how it went.
    pub(super) fn end(mut self) -> anyhow::Result<ExitCode> {
        let summaries = std::mem::take(&mut self.summaries);
        let slowest = std::mem::take(&mut self.slowest);
        if !self.single {
            for (summary, slowest) in summaries.iter().zip(&slowest) {
                let text = if self.json {
                    json(&Line::Summary(summary))?
                } else {
                    let slowest = slowest.as_ref();
                    let drawn = slowest.map_or_else(String::new, |slowest| {
                        let drawn = path::waterfall(slowest, self.style);
                        format!("\nslowest, number {}:\n{drawn}", slowest.sequence)
                    });
                    format!("\n{}{drawn}", path::table(summary))
                };
                self.print(&text)?;
            }
        }
        let measured = |summary: &Summary| summary.measurements > 0;
        if !summaries.iter().any(measured) {
            return Err(anyhow!("nothing was measured before it was stopped"));
        }
        let fine = summaries
            .iter()
            .all(|summary| summary.successes == summary.measurements);
        Ok(ExitCode::from(if fine { 0 } else { 3 }))
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        if !self.open {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.open = false;
                Ok(())
            }
            result => result,
        }
    }
}

fn json(line: &Line<'_>) -> anyhow::Result<String> {
    let mut text = serde_json::to_string(line).context("failed to write JSON")?;
    text.push('\n');
    Ok(text)
}
