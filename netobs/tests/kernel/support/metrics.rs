//! OpenMetrics text, as far as the agent writes it.

use std::{collections::BTreeMap, fmt::Display};

use anyhow::{Context, Result, ensure};

/// Labels to select by: every one given must be there with this value.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a dyn Display)];

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// One scrape.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) text: String,
    pub(crate) samples: Vec<Sample>,
}

impl Metrics {
    /// Parses a whole answer; anything that is not a sample or a comment is an error.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        ensure!(
            text.ends_with("# EOF\n"),
            "the text does not end with # EOF"
        );
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines
            .map(|line| sample(line).with_context(|| format!("parse {line:?}")))
            .collect::<Result<_>>()?;
        Ok(Self {
            text: text.to_owned(),
            samples,
        })
    }

    /// The samples of a name with these labels among theirs.
    pub(crate) fn all<'a>(
        &'a self,
        name: &'a str,
        labels: Labels<'a>,
    ) -> impl Iterator<Item = &'a Sample> + 'a {
        let wanted: Vec<(&str, String)> = labels
            .iter()
            .map(|(label, value)| (*label, value.to_string()))
            .collect();
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && wanted
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label) == Some(value))
        })
    }

    /// The value of the one sample with these labels; `None` when there is none.
    ///
    /// # Panics
    /// When there are several.
    pub(crate) fn get(&self, name: &str, labels: Labels<'_>) -> Option<f64> {
        let found: Vec<&Sample> = self.all(name, labels).collect();
        assert!(found.len() < 2, "several {name}: {found:#?}");
        found.first().map(|sample| sample.value)
    }

    /// The sum of all samples with these labels.
    pub(crate) fn sum(&self, name: &str, labels: Labels<'_>) -> u64 {
        let sum: f64 = self.all(name, labels).map(|sample| sample.value).sum();
        assert!(
            sum >= 0.0 && sum.fract() == 0.0 && sum < 1e15,
            "{name} is no count: {sum}"
        );
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number below 2^50, as was just seen"
        )]
        let sum = sum as u64;
        sum
    }
}

/// `name{label="value",...} value`.
fn sample(line: &str) -> Result<Sample> {
    let (name, mut rest) = line
        .find(['{', ' '])
        .map(|at| line.split_at(at))
        .context("no value")?;
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").context("a label without a value")?;
            let (value, after) = quoted(after)?;
            let fresh = labels.insert(label.to_owned(), value).is_none();
            ensure!(fresh, "the label {label} is there twice");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}').context("labels do not end")?;
    }
    let value = rest
        .strip_prefix(' ')
        .context("no blank before the value")?;
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().context("the value")?,
    })
}

/// A label's value up to its quote, unescaped, and what follows.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => value.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('"' | '\\'))) => escaped,
                other => anyhow::bail!("no such escape: {other:?}"),
            }),
            plain => value.push(plain),
        }
    }
    anyhow::bail!("a value without an end")
}

#[test]
fn samples_are_parsed_and_escapes_undone() {
    let text = "# TYPE a counter\na_total{b=\"x\\\"\\\\\\n,}\",c=\"\"} 7\nd 1.5\n# EOF\n";
    let metrics = Metrics::parse(text).unwrap();
    assert_eq!(
        metrics.get("a_total", &[("b", &"x\"\\\n,}"), ("c", &"")]),
        Some(7.0)
    );
    assert_eq!(metrics.get("d", &[]), Some(1.5));
    assert_eq!(metrics.get("a_total", &[("c", &"z")]), None);
    assert_eq!(metrics.sum("a_total", &[]), 7);
    for broken in [
        "a{b=\"x} 1\n# EOF\n",
        "a 1\n",
        "a{b=\"\\t\"} 1\n# EOF\n",
        "a\n# EOF\n",
    ] {
        assert!(Metrics::parse(broken).is_err(), "{broken:?}");
    }
}
