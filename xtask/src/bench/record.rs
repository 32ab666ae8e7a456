//! What a run found: figures with their spread, and what was not there to be measured.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::environment::Environment;

/// Changes when older records can no longer be read.
const VERSION: u32 = 1;

/// Everything that one run found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// Small sizes: the figures say that it works, not how well.
    pub(super) quick: bool,
    pub(super) environment: Environment,
    pub(super) figures: Vec<Figure>,
    pub(super) absent: Vec<Absent>,
}

/// One quantity of one subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Figure {
    pub(super) case: String,
    /// What was measured, within its case.
    pub(super) measure: String,
    /// Whose: `netobs`, `nothing`, or a peer's name.
    pub(super) subject: String,
    pub(super) unit: Unit,
    pub(super) value: Summary,
    /// The subject's value over that of the one it was measured in turns with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<Ratio>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// Something that could not be measured here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Absent {
    pub(super) case: String,
    pub(super) subject: String,
    pub(super) reason: String,
}

/// The middle of several measurements, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) runs: usize,
}

impl Summary {
    /// Of at least one value; values that are no numbers are left out.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len() % 2 == 1 {
            upper
        } else {
            f64::midpoint(*sorted.get(middle - 1)?, upper)
        };
        Some(Self {
            median,
            least,
            most,
            runs: sorted.len(),
        })
    }
}

/// A ratio of values that were measured right after each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ratio {
    /// The subject whose value is 1.
    pub(super) to: String,
    #[serde(flatten)]
    pub(super) value: Summary,
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    Nanoseconds,
    Milliseconds,
    PerSecond,
    Bytes,
    Megabytes,
    /// Bytes moved in a second.
    MegabytesPerSecond,
    /// A part of a whole, 1 is all of it.
    Part,
    Count,
    Instructions,
}

impl Unit {
    /// A value with its unit, with three digits that count.
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Nanoseconds => format!("{} ns", number(value)),
            Self::Milliseconds => format!("{} ms", number(value)),
            Self::PerSecond => format!("{} /s", number(value)),
            Self::Bytes => format!("{} bytes", number(value)),
            Self::Megabytes => format!("{} MB", number(value)),
            Self::MegabytesPerSecond => format!("{} MB/s", number(value)),
            Self::Part => format!("{} %", number(value * 100.0)),
            Self::Count => number(value),
            Self::Instructions => format!("{} instructions", number(value)),
        }
    }
}

/// A number with as many digits as tell something, thousands set apart.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    let plain = if size >= 100.0 || size == 0.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    };
    let (sign, digits) = plain.strip_prefix('-').map_or(("", &*plain), |d| ("-", d));
    let (whole, rest) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut grouped = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} x {}", self.value.median, self.to)
    }
}

impl Record {
    pub(super) fn new(quick: bool, environment: Environment) -> Self {
        Self {
            version: VERSION,
            quick,
            environment,
            figures: Vec::new(),
            absent: Vec::new(),
        }
    }

    /// Reads a record that was written by [`Record::write`].
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        let record: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is no record of a benchmark", path.display()))?;
        ensure!(
            record.version == VERSION,
            "{} is a record of version {}, not {VERSION}",
            path.display(),
            record.version
        );
        Ok(record)
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("failed to write JSON")?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
    }

    /// The one figure of a subject.
    pub(super) fn find(&self, case: &str, measure: &str, subject: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| {
            figure.case == case && figure.measure == measure && figure.subject == subject
        })
    }

    /// Puts the figures of some cases in the place of older ones.
    pub(super) fn replace(&mut self, newer: Self, cases: &[&str]) {
        self.quick = newer.quick;
        self.environment = newer.environment;
        self.figures
            .retain(|figure| !cases.contains(&&*figure.case));
        self.absent.retain(|absent| !cases.contains(&&*absent.case));
        self.figures.extend(newer.figures);
        self.absent.extend(newer.absent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_and_even_numbers_of_values() {
        let of = |values: &[f64]| Summary::of(values).map(|summary| summary.median);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(of(&[f64::NAN]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn numbers_have_the_digits_that_count() {
        let shown: Vec<String> = [0.0, 0.1234, 1.234, 56.78, 1234.5, 1e7, -2500.0, 5.0]
            .into_iter()
            .map(number)
            .collect();
        assert_eq!(
            shown,
            [
                "0",
                "0.123",
                "1.23",
                "56.8",
                "1,234",
                "10,000,000",
                "-2,500",
                "5"
            ]
        );
    }
}
