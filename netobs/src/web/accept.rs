//! Content negotiation: which exposition format, and whether to compress (RFC 9110, section 12.5).

/// The exposition formats on offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The Prometheus text format, version 0.0.4.
    Text004,
}

impl Format {
    /// The `Content-Type` of a body in this format. Prometheus 3 refuses a scrape without one.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text004 => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    const fn media_type(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::OpenMetrics => ("application", "openmetrics-text", "1.0.0"),
            Self::Text004 => ("text", "plain", "0.0.4"),
        }
    }
}

/// How well the header speaks for something: how exactly it was named, then its weight in
/// thousandths. The more exact range overrides the wider one, whatever their weights.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    exactness: u8,
    weight: u16,
}

/// Chooses the exposition format from the value of an `Accept` header.
///
/// Text 0.0.4 is the answer when the header is missing, names neither format, or says only `*/*`.
/// OpenMetrics must weigh more than text 0.0.4, or as much and be named more exactly; when both are
/// named outright with one weight it wins, because it carries units and exemplars too.
#[must_use]
pub fn negotiate_format(accept: &str) -> Format {
    let open_metrics = preference(accept, Format::OpenMetrics);
    let text = preference(accept, Format::Text004);
    let open_metrics_wins = match (open_metrics, text) {
        (Some(open), None) => open.weight > 0,
        (Some(open), Some(text)) if open.weight > 0 => {
            open.weight > text.weight
                || open.weight == text.weight
                    && (open.exactness > text.exactness || open.exactness == EXACT)
        }
        _ => false,
    };
    if open_metrics_wins {
        Format::OpenMetrics
    } else {
        Format::Text004
    }
}

/// Exactness of a media range that names type and subtype.
const EXACT: u8 = 2;

fn preference(accept: &str, format: Format) -> Option<Preference> {
    let (wanted_type, wanted_subtype, wanted_version) = format.media_type();
    let mut best: Option<Preference> = None;
    for element in split_outside_quotes(accept, ',') {
        let mut parts = split_outside_quotes(element, ';');
        let Some((media_type, subtype)) = parts.next().and_then(|range| range.split_once('/'))
        else {
            continue;
        };
        let (media_type, subtype) = (media_type.trim(), subtype.trim());
        let exactness = match (media_type, subtype) {
            ("*", "*") => 0,
            (named, "*") if named.eq_ignore_ascii_case(wanted_type) => 1,
            (named, sub)
                if named.eq_ignore_ascii_case(wanted_type)
                    && sub.eq_ignore_ascii_case(wanted_subtype) =>
            {
                EXACT
            }
            _ => continue,
        };
        // Other parameters (`charset`, `escaping`) do not change what would be sent.
        let Some(Parameters { weight, version }) = parameters(parts) else {
            continue;
        };
        if version.is_some_and(|version| version != wanted_version) {
            continue;
        }
        let candidate = Preference { exactness, weight };
        if best.is_none_or(|best| candidate > best) {
            best = Some(candidate);
        }
    }
    best
}

/// Whether to compress with gzip, from the value of an `Accept-Encoding` header.
#[must_use]
pub fn negotiate_gzip(accept_encoding: &str) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for element in split_outside_quotes(accept_encoding, ',') {
        let mut parts = split_outside_quotes(element, ';');
        let coding = parts.next().unwrap_or_default().trim();
        let Some(Parameters { weight, .. }) = parameters(parts) else {
            continue;
        };
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            gzip = gzip.max(Some(weight));
        } else if coding.eq_ignore_ascii_case("identity") {
            identity = identity.max(Some(weight));
        } else if coding == "*" {
            any = any.max(Some(weight));
        }
    }
    let weight = gzip.or(any).unwrap_or(0);
    weight > 0 && identity.is_none_or(|identity| weight >= identity)
}

struct Parameters<'a> {
    /// The `q` parameter in thousandths; 1000 when absent.
    weight: u16,
    version: Option<&'a str>,
}

/// Reads the parameters after a range; `None` when the weight is malformed, which makes the whole
/// element worth nothing.
fn parameters<'a>(parts: impl Iterator<Item = &'a str>) -> Option<Parameters<'a>> {
    let mut found = Parameters {
        weight: 1000,
        version: None,
    };
    for part in parts {
        let Some((name, value)) = part.split_once('=') else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("q") {
            found.weight = weight(value)?;
        } else if name.eq_ignore_ascii_case("version") {
            found.version = Some(value.trim_matches('"'));
        }
    }
    Some(found)
}

/// `0`, `0.5`, `1.000`: at most three decimals and never above one.
fn weight(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut thousandths: u16 = if decimals.is_empty() {
        0
    } else {
        decimals.parse().ok()?
    };
    for _ in decimals.len()..3 {
        thousandths *= 10;
    }
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// Splits at `separator`, except inside quoted strings.
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |c| {
        let escapes = quoted && c == '\\' && !escaped;
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = escapes;
        c == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What Prometheus 3 sends by default.
    const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
         application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
         escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    /// What Prometheus 3 sends when it scrapes native histograms.
    const PROMETHEUS_3_PROTOBUF: &str = "application/vnd.google.protobuf;\
         proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
         application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    const PROMETHEUS_2_4: &str = "application/openmetrics-text; version=0.0.1,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

    #[test]
    fn formats() {
        use Format::{OpenMetrics, Text004};
        let table = [
            ("", Text004),
            ("*/*", Text004),
            ("text/*", Text004),
            ("application/*", OpenMetrics),
            ("application/*, */*", OpenMetrics),
            ("application/*;q=0.5, */*", Text004),
            (PROMETHEUS_3, OpenMetrics),
            (PROMETHEUS_3_PROTOBUF, OpenMetrics),
            (PROMETHEUS_2_4, Text004),
            (BROWSER, Text004),
            ("image/png", Text004),
            ("application/openmetrics-text", OpenMetrics),
            ("APPLICATION/OpenMetrics-Text; Version=1.0.0", OpenMetrics),
            (
                "application/openmetrics-text; version=\"1.0.0\"",
                OpenMetrics,
            ),
            ("application/openmetrics-text; version=2.0.0", Text004),
            ("application/openmetrics-text;q=0", Text004),
            ("application/openmetrics-text;q=0, */*", Text004),
            (
                "application/openmetrics-text;q=0.3, text/plain;q=0.4",
                Text004,
            ),
            (
                "application/openmetrics-text;q=0.4, text/plain;q=0.3",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;q=0.4, text/plain;q=0.400",
                OpenMetrics,
            ),
            ("text/plain, application/openmetrics-text", OpenMetrics),
            ("application/openmetrics-text;q=0.5, */*;q=0.5", OpenMetrics),
            ("application/openmetrics-text;q=0.5, */*;q=0.6", Text004),
            ("application/openmetrics-text;q=1.5", Text004),
            ("application/openmetrics-text;q=abc", Text004),
            ("application/openmetrics-text;q=", Text004),
            ("application/openmetrics-text;note=\"a,b;q=0\"", OpenMetrics),
            ("a/b;note=\"x, application/openmetrics-text\"", Text004),
            (",,;;,/,a/,/b", Text004),
        ];
        for (accept, expected) in table {
            assert_eq!(negotiate_format(accept), expected, "Accept: {accept}");
        }
    }

    #[test]
    fn compression() {
        let table = [
            ("", false),
            ("gzip", true),
            ("GZIP", true),
            ("x-gzip", true),
            ("deflate, br", false),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("gzip;q=0.000", false),
            ("gzip;q=0.001", true),
            ("identity, gzip;q=0.5", false),
            ("identity;q=0.5, gzip", true),
            ("gzip;q=nonsense", false),
        ];
        for (accept, expected) in table {
            assert_eq!(
                negotiate_gzip(accept),
                expected,
                "Accept-Encoding: {accept}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_header_gets_an_answer(header in ".*") {
            let _ = negotiate_format(&header);
            let _ = negotiate_gzip(&header);
        }
    }
}
