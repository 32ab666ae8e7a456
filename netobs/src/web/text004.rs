//! OpenMetrics 1.0.0 text rewritten as Prometheus text 0.0.4.
//!
//! The two formats write samples alike; what differs is around them. In 0.0.4 the TYPE and HELP
//! lines carry the name of the *sample* (`foo_total`), there are no `info`, `stateset`, `unknown`
//! and `gaugehistogram` types, no units, no exemplars, no `_created` samples and no end mark.
//! Time stamps are dropped: netobs sends none, and the two formats disagree on their unit.

/// Rewrites `openmetrics`. Label values stay byte for byte what they were.
///
/// A line that is no sample at all is kept as it is: the scraper then names it in its error, which
/// is better than a series that is missing and nobody knows why.
#[must_use]
pub fn rewrite(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    let mut family = Family::default();
    for line in openmetrics.lines() {
        if let Some(comment) = line.strip_prefix('#') {
            match Comment::parse(comment) {
                Comment::Help { name, text } => family.enter(name).help = Some(text),
                Comment::Type { name, kind } => family.enter(name).kind = Some(kind),
                Comment::End => break,
                Comment::Other => {}
            }
        } else if !line.is_empty() {
            match Sample::parse(line) {
                Some(sample) if family.creates(sample.name) => {}
                Some(sample) => {
                    family.announce(&mut out);
                    push(&mut out, &[sample.series, " ", sample.value, "\n"]);
                }
                None => push(&mut out, &[line, "\n"]),
            }
        }
    }
    out
}

fn push(out: &mut String, parts: &[&str]) {
    for part in parts {
        out.push_str(part);
    }
}

/// The family whose lines are being read. Its HELP may come before its TYPE, which decides the name
/// that both carry, so both are kept until the first sample.
#[derive(Default)]
struct Family<'a> {
    name: &'a str,
    help: Option<&'a str>,
    kind: Option<&'a str>,
    announced: bool,
}

impl<'a> Family<'a> {
    /// Starts a new family when `name` is another one.
    fn enter(&mut self, name: &'a str) -> &mut Self {
        if self.name != name || self.announced {
            *self = Family {
                name,
                ..Family::default()
            };
        }
        self
    }

    /// Writes what 0.0.4 says ahead of the first sample.
    fn announce(&mut self, out: &mut String) {
        if self.announced {
            return;
        }
        self.announced = true;
        let (suffix, kind) = match self.kind {
            Some("counter") => ("_total", "counter"),
            Some("info") => ("_info", "gauge"),
            Some("gauge" | "stateset") => ("", "gauge"),
            Some("histogram") => ("", "histogram"),
            Some("summary") => ("", "summary"),
            // No type of 0.0.4 fits the samples of a gauge histogram; they stay untyped each.
            Some("gaugehistogram") => return,
            _ => ("", "untyped"),
        };
        if let Some(help) = self.help {
            push(out, &["# HELP ", self.name, suffix, " "]);
            escape_help(out, help);
            out.push('\n');
        }
        if self.kind.is_some() {
            push(out, &["# TYPE ", self.name, suffix, " ", kind, "\n"]);
        }
    }

    /// Whether a sample of this name says when a series began, which 0.0.4 cannot.
    fn creates(&self, sample: &str) -> bool {
        matches!(self.kind, Some("counter" | "histogram" | "summary"))
            && sample.strip_suffix("_created") == Some(self.name)
    }
}

/// In 0.0.4 a HELP text escapes backslash and line feed only; an OpenMetrics one also the quote.
fn escape_help(out: &mut String, help: &str) {
    let mut rest = help.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next_if(|next| matches!(next, '\\' | 'n' | '"')) {
            Some('"') => out.push('"'),
            Some(escaped) => out.extend(['\\', escaped]),
            None => out.push_str("\\\\"),
        }
    }
}

enum Comment<'a> {
    Help { name: &'a str, text: &'a str },
    Type { name: &'a str, kind: &'a str },
    End,
    Other,
}

impl<'a> Comment<'a> {
    /// Reads what follows the `#`.
    fn parse(comment: &'a str) -> Self {
        let Some(comment) = comment.strip_prefix(' ') else {
            return Self::Other;
        };
        let (keyword, rest) = comment.split_once(' ').unwrap_or((comment, ""));
        let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
        match keyword {
            "HELP" => Self::Help { name, text },
            "TYPE" => Self::Type {
                name,
                kind: text.trim_end(),
            },
            "EOF" if rest.is_empty() => Self::End,
            _ => Self::Other,
        }
    }
}

/// One sample line, cut before its time stamp and exemplar.
struct Sample<'a> {
    name: &'a str,
    /// Name and labels.
    series: &'a str,
    value: &'a str,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let name_end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at_checked(name_end)?;
        let labels_end = if rest.starts_with('{') {
            labels_end(rest)?
        } else {
            0
        };
        let (series, rest) = line.split_at_checked(name_end + labels_end)?;
        let value = rest
            .strip_prefix(' ')?
            .split(' ')
            .next()
            .unwrap_or_default();
        (!name.is_empty() && !value.is_empty()).then_some(Self {
            name,
            series,
            value,
        })
    }
}

/// Length of the label set that `text` starts with, its closing brace included. Braces, spaces and
/// hashes inside quotes belong to the value.
fn labels_end(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn families() {
        let table = [
            (
                "counter, help first",
                "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"1\"} 7\n# EOF\n",
                "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 7\n",
            ),
            (
                "counter, type first, with unit",
                "# TYPE a_seconds counter\n# UNIT a_seconds seconds\n# HELP a_seconds T.\n\
                 a_seconds_total 7.5\n# EOF\n",
                "# HELP a_seconds_total T.\n# TYPE a_seconds_total counter\na_seconds_total 7.5\n",
            ),
            (
                "info",
                "# HELP b Build.\n# TYPE b info\nb_info{v=\"1\"} 1\n# EOF\n",
                "# HELP b_info Build.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n",
            ),
            (
                "stateset and unknown",
                "# TYPE s stateset\ns{s=\"on\"} 1\n# TYPE u unknown\nu 3\n# EOF\n",
                "# TYPE s gauge\ns{s=\"on\"} 1\n# TYPE u untyped\nu 3\n",
            ),
            (
                "gauge named like a creation time",
                "# TYPE g_created gauge\ng_created 5\n# TYPE g gauge\ng 1\ng_created 5\n# EOF\n",
                "# TYPE g_created gauge\ng_created 5\n# TYPE g gauge\ng 1\ng_created 5\n",
            ),
            (
                "histogram with exemplar and creation time",
                "# TYPE h histogram\nh_sum 1.5\nh_count 2\n\
                 h_bucket{le=\"0.1\"} 1 # {id=\"7\"} 0.05\nh_bucket{le=\"+Inf\"} 2\n\
                 h_created 1700000000.0\n# EOF\n",
                "# TYPE h histogram\nh_sum 1.5\nh_count 2\nh_bucket{le=\"0.1\"} 1\n\
                 h_bucket{le=\"+Inf\"} 2\n",
            ),
            (
                "gauge histogram",
                "# HELP q Q.\n# TYPE q gaugehistogram\nq_gcount 2\n# EOF\n",
                "q_gcount 2\n",
            ),
            ("no metadata", "x 1\n# EOF\n", "x 1\n"),
            (
                "help alone",
                "# HELP x X.\nx 1\n# EOF\n",
                "# HELP x X.\nx 1\n",
            ),
            (
                "family without samples",
                "# HELP x X.\n# TYPE x gauge\n# EOF\n",
                "",
            ),
            (
                "comments and blank lines",
                "# just so\n#\n\nx 1\n# EOF\n",
                "x 1\n",
            ),
            ("nothing after the end", "x 1\n# EOF\ny 2\n", "x 1\n"),
            ("no end mark", "x 1", "x 1\n"),
            ("empty", "", ""),
        ];
        for (case, from, to) in table {
            assert_eq!(rewrite(from), to, "{case}");
        }
    }

    #[test]
    fn samples() {
        let table = [
            ("a 1 1700000000", "a 1\n"),
            ("a 1 1700000000.5 # {id=\"1\"} 1 1700000000", "a 1\n"),
            (
                "a{l=\"x # {y=\\\"1\\\"} 2\"} 1",
                "a{l=\"x # {y=\\\"1\\\"} 2\"} 1\n",
            ),
            ("a{l=\"}\"} 1 # {id=\"}\"} 2", "a{l=\"}\"} 1\n"),
            ("a{l=\"back\\\\\"} 1 # {id=\"\"} 2", "a{l=\"back\\\\\"} 1\n"),
            (
                "a{l=\"two\\nlines\",m=\"#\"} +Inf",
                "a{l=\"two\\nlines\",m=\"#\"} +Inf\n",
            ),
            ("a{} NaN", "a{} NaN\n"),
            // Not samples: kept, for the scraper to complain about.
            ("a", "a\n"),
            ("a{l=\"open} 1", "a{l=\"open} 1\n"),
            ("a{l=\"x\"}1", "a{l=\"x\"}1\n"),
            ("{} 1", "{} 1\n"),
        ];
        for (from, to) in table {
            assert_eq!(rewrite(from), to, "{from}");
        }
    }

    #[test]
    fn help_texts() {
        let table = [
            ("plain", "plain"),
            ("a \\\"word\\\"", "a \"word\""),
            ("two\\nlines \\\\ slash", "two\\nlines \\\\ slash"),
            ("lone \\ slash\\", "lone \\\\ slash\\\\"),
        ];
        for (from, to) in table {
            let from = format!("# HELP x {from}\nx 1\n");
            assert_eq!(rewrite(&from), format!("# HELP x {to}\nx 1\n"));
        }
    }

    /// A label value as the encoder writes it.
    fn escaped(value: &str) -> String {
        value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    }

    proptest! {
        #[test]
        fn any_text_is_rewritten(text in "(?s).*") {
            let _ = rewrite(&text);
        }

        #[test]
        fn near_metrics_are_rewritten(text in "([#{}\" \\\\a=,\n]|# TYPE a |# HELP a |counter|# EOF)*") {
            let _ = rewrite(&text);
        }

        #[test]
        fn label_values_stay_intact(value in "(?s).*", exemplar in any::<bool>()) {
            let series = format!("a_total{{l=\"{}\"}}", escaped(&value));
            let tail = if exemplar { " # {id=\"9\"} 1.0" } else { "" };
            let from = format!("# TYPE a counter\n{series} 5{tail}\n# EOF\n");
            prop_assert_eq!(rewrite(&from), format!("# TYPE a_total counter\n{series} 5\n"));
        }
    }
}
