//! A measurement as text: where the time went, drawn.

use std::{fmt::Write as _, time::Duration};

use super::{
    outcome::{Lookup, LookupSource, Measurement, Phase, Step},
    story::duration_text,
    summary::Summary,
};

/// How text is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns.
    pub width: usize,
    /// Whether colours may be used.
    pub colour: bool,
}

/// Narrower than this there is no room to draw; lines then become longer than the terminal.
const NARROWEST: usize = 60;
/// Wider bars do not say more.
const WIDEST_BAR: usize = 60;
/// Of the columns before the bar: name and time.
const NAME_WIDTH: usize = 10;
const TIME_WIDTH: usize = 8;

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const YELLOW: &str = "\x1b[33m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

impl Style {
    fn paint(self, text: &str, with: &str) -> String {
        if self.colour {
            format!("{with}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}

/// One measurement in full: a head, a line a phase with its bar, and the story.
#[must_use]
pub fn waterfall(measurement: &Measurement, style: Style) -> String {
    let mut out = String::new();
    let total = measurement.phases.total;
    // Writing to a string cannot fail, so results of `write!` are dropped here.
    let verdict = verdict(measurement);
    let colour = if measurement.success { GREEN } else { RED };
    let name = style.paint(&shown(&measurement.target), BOLD);
    let _ = writeln!(
        out,
        "{name}  {}  {}",
        style.paint(&verdict, colour),
        duration_text(total)
    );
    let width = style.width.max(NARROWEST);
    let room = width.saturating_sub(2 + NAME_WIDTH + 1 + TIME_WIDTH + 4);
    let bar = (room * 2 / 5).clamp(16, WIDEST_BAR);
    let detail = room.saturating_sub(bar + 2).max(16);
    for (index, step) in measurement.steps.iter().enumerate() {
        let last = index + 1 == measurement.steps.len();
        if measurement.steps.len() > 1 {
            let _ = writeln!(out, "  {}", cut(&shown(&step.url), width.saturating_sub(2)));
        }
        for phase in Phase::ALL {
            let Some(span) = step.phases.get(phase) else {
                continue;
            };
            let failure = measurement.failure.as_ref();
            let failed = last && failure.is_some_and(|failure| failure.phase == phase);
            let drawn = draw(span.start, span.length, total, bar);
            let paint = if failed { RED } else { CYAN };
            let time = duration_text(span.length);
            let words = phase.words();
            let about = cut(&about(step, phase), detail);
            let line = format!(
                "  {words:NAME_WIDTH$} {time:>TIME_WIDTH$} |{}| {about}",
                style.paint(&drawn, paint),
            );
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    for sentence in &measurement.story {
        let mut indent = "  * ";
        for line in wrapped(&shown(sentence), width.saturating_sub(4)) {
            let text = style.paint(&line, if measurement.success { PLAIN } else { YELLOW });
            let _ = writeln!(out, "{indent}{text}");
            indent = "    ";
        }
    }
    out
}

/// One measurement on one line, for a series of them, and its story where it is no success.
#[must_use]
pub fn line(measurement: &Measurement, style: Style) -> String {
    let colour = if measurement.success { GREEN } else { RED };
    let verdict = style.paint(&verdict(measurement), colour);
    let mut out = format!(
        "{:>4}  {}  {verdict}  total {}",
        measurement.sequence,
        shown(&measurement.target),
        duration_text(measurement.phases.total)
    );
    for phase in Phase::ALL {
        if let Some(length) = measurement.phases.get(phase) {
            let _ = write!(out, "  {} {}", phase.words(), duration_text(length));
        }
    }
    out.push('\n');
    let telling = |sentence: &&String| !sentence.starts_with("nothing unusual");
    for sentence in measurement.story.iter().filter(telling) {
        let _ = writeln!(out, "      * {}", shown(sentence));
    }
    out
}

/// A summary as a table.
#[must_use]
pub fn table(summary: &Summary) -> String {
    let mut out = format!(
        "{}: {} measured, {} as expected\n",
        shown(&summary.target),
        summary.measurements,
        summary.successes
    );
    for ((phase, error_type), count) in &summary.failures {
        let (phase, cause) = (phase.words(), error_type.name());
        let _ = writeln!(out, "  {count} failed in {phase}: {cause}");
    }
    let columns = ["min", "p50", "p90", "p95", "p99", "max"];
    let _ = write!(out, "  {:NAME_WIDTH$} {:>6}", "phase", "number");
    for name in columns {
        let _ = write!(out, " {name:>TIME_WIDTH$}");
    }
    out.push('\n');
    for (name, times) in summary.phases() {
        let name = name.replace('_', " ");
        let _ = write!(out, "  {name:NAME_WIDTH$} {:>6}", times.count);
        for time in [
            times.min, times.p50, times.p90, times.p95, times.p99, times.max,
        ] {
            let _ = write!(out, " {:>TIME_WIDTH$}", duration_text(time));
        }
        out.push('\n');
    }
    out
}

/// How it went, in one or two words.
fn verdict(measurement: &Measurement) -> String {
    let status = measurement.steps.last().and_then(|step| step.http.as_ref());
    let status = status.and_then(|http| http.status);
    match (&measurement.failure, status) {
        (Some(failure), Some(status)) => {
            format!(
                "{status} {} ({})",
                failure.error_type.name(),
                failure.phase.words()
            )
        }
        (Some(failure), None) => {
            format!("{} ({})", failure.error_type.name(), failure.phase.words())
        }
        (None, Some(status)) => format!("{status} fine"),
        (None, None) => "fine".to_owned(),
    }
}

/// A bar from where the phase began to where it ended. What took any time at all is seen.
fn draw(start: Duration, length: Duration, total: Duration, width: usize) -> String {
    let column = |at: Duration| {
        let share = at.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share between 0 and 1 of a few dozen columns"
        )]
        let column = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
        column.min(width)
    };
    let first = column(start).min(width.saturating_sub(1));
    let end = column(start.saturating_add(length))
        .max(first + 1)
        .min(width);
    let mut bar = " ".repeat(first);
    bar.push_str(&"#".repeat(end - first));
    bar.push_str(&" ".repeat(width - end));
    bar
}

/// What there is to say of a phase besides its time.
fn about(step: &Step, phase: Phase) -> String {
    match phase {
        Phase::Dns => step.lookup.as_ref().map_or_else(String::new, of_lookup),
        Phase::Connect => step.connections.last().map_or_else(String::new, |last| {
            let local = last
                .local
                .map_or_else(|| "?".to_owned(), |it| it.to_string());
            format!("{local} -> {}", last.remote)
        }),
        Phase::Tls => step.tls.as_ref().map_or_else(String::new, |tls| {
            let words = [
                tls.version.unwrap_or_default(),
                tls.cipher.unwrap_or_default(),
                tls.alpn.as_deref().unwrap_or_default(),
            ];
            shown(&words.join(" "))
        }),
        Phase::FirstByte => String::new(),
        Phase::Transfer => step.http.as_ref().map_or_else(String::new, |http| {
            let version = http.version.unwrap_or_default();
            format!("{version} {} bytes of body", http.body_bytes)
        }),
    }
}

fn of_lookup(lookup: &Lookup) -> String {
    let found = if lookup.records.is_empty() {
        let all: Vec<String> = lookup.addresses.iter().map(ToString::to_string).collect();
        all.join(" ")
    } else {
        lookup.records.join(" ")
    };
    let source = match lookup.source {
        LookupSource::Literal => "an address",
        LookupSource::Given => "as given:",
        LookupSource::Hosts => "hosts file:",
        LookupSource::Dns => "",
    };
    shown(format!("{source} {found}").trim())
}

/// Text that may come from the network, without what would move a terminal's cursor.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// At most so many characters.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(2)).collect();
    format!("{kept}..")
}

/// Lines of at most so many characters, broken at spaces.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{Connection, Plan};

    fn measurement() -> Measurement {
        let plan = Plan::new("http://10.0.0.1/".parse().unwrap());
        let mut it = Measurement::blank(&plan, 1);
        let mut step = Step {
            url: "http://10.0.0.1/".to_owned(),
            ..Step::default()
        };
        let span = |start, length| super::super::Span {
            start: Duration::from_millis(start),
            length: Duration::from_millis(length),
        };
        step.phases.set(Phase::Connect, span(0, 1000));
        step.phases.set(Phase::FirstByte, span(1000, 250));
        step.connections.push(Connection {
            local: "10.0.0.2:4711".parse().ok(),
            remote: "10.0.0.1:80".parse().unwrap(),
            start: Duration::ZERO,
            length: Duration::from_secs(1),
            error_type: None,
            syns_sent: Some(2),
            retransmits_after: Some(0),
            rtt: None,
        });
        it.steps.push(step);
        it.sum_up(Duration::from_millis(1250));
        it.success = true;
        it.story = super::super::story::tell(&it);
        it
    }

    const STYLE: Style = Style {
        width: 80,
        colour: false,
    };

    #[test]
    fn bars_stand_where_the_time_went() {
        let text = waterfall(&measurement(), STYLE);
        let expected = "\
http://10.0.0.1/  fine  1.25 s
  connect      1.00 s |##################    | 10.0.0.2:4711 -> 10.0.0.1:80
  first byte   250 ms |                  ####|
  * connect took 1.00 s: SYN sent 2 times, no answer to the first; 0
    retransmissions after
";
        assert_eq!(text, expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_colour_only_where_wanted() {
        for width in [60, 72, 80, 100, 132, 300] {
            let text = waterfall(&measurement(), Style { width, ..STYLE });
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
            assert!(!text.contains('\u{1b}'));
        }
        let style = Style {
            colour: true,
            ..STYLE
        };
        assert!(waterfall(&measurement(), style).contains('\u{1b}'));
        assert!(line(&measurement(), style).contains('\u{1b}'));
        assert!(!line(&measurement(), STYLE).contains('\u{1b}'));
    }

    #[test]
    fn text_of_others_is_escaped() {
        let mut measurement = measurement();
        measurement.target = "a\u{1b}[2J".to_owned();
        measurement.story = vec!["b\u{7}\u{9b}".to_owned()];
        let text = waterfall(&measurement, STYLE) + &line(&measurement, STYLE);
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{text:?}");
    }

    proptest::proptest! {
        #[test]
        fn any_span_is_drawn(start: u32, length: u32, total: u32, width in 1_usize..200) {
            let of = |millis: u32| Duration::from_millis(millis.into());
            let bar = draw(of(start), of(length), of(total), width);
            proptest::prop_assert_eq!(bar.len(), width);
            proptest::prop_assert!(bar.contains('#'));
        }
    }
}
