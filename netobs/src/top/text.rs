//! Text for a terminal: names come from processes, pods and other machines, and may hold anything.

use std::borrow::Cow;

use netobs_common::connection::LATENCY_BOUNDS_NS;

/// Longest text of one value, in characters.
const MOST: usize = 500;

/// The text without what could command a terminal or upset its columns: controls, marks of writing
/// direction, characters without width and unassigned ones become `?`; what is very long is cut.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.len() <= MOST && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Cow::Borrowed(text);
    }
    let character = |c: char| if is_printable(c) { c } else { '?' };
    Cow::Owned(text.chars().take(MOST).map(character).collect())
}

/// As the standard library sees it for one character on its own; it escapes quotes and the
/// backslash as well, which are harmless.
pub(super) fn is_printable(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

/// A number in at most five characters: `12`, `3456`, `12.3k`, `1.2M`.
#[must_use]
pub(super) fn count(number: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1_000, "k"),
    ];
    if number < 100_000 {
        return number.to_string();
    }
    for (unit, name) in UNITS {
        if number >= unit {
            let whole = number / unit;
            let tenths = number % unit * 10 / unit;
            return if whole < 100 {
                format!("{whole}.{tenths}{name}")
            } else {
                format!("{whole}{name}")
            };
        }
    }
    number.to_string()
}

/// A number a second: `0`, `0.3`, `12`, `1.2M`.
#[must_use]
pub(super) fn rate(rate: f64) -> String {
    if rate <= 0.0 {
        "0".to_owned()
    } else if rate < 9.95 {
        format!("{:.1}", rate.max(0.1))
    } else {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and a cast to an integer saturates"
        )]
        count(rate.round() as u64)
    }
}

/// A time: `500us`, `2.5ms`, `1s`. `u64::MAX`: above the greatest bound of the histogram.
#[must_use]
pub(super) fn latency(ns: u64) -> String {
    if ns == u64::MAX {
        let most = LATENCY_BOUNDS_NS.last().copied().unwrap_or(0);
        return format!(">{}", latency(most));
    }
    let (unit, name) = match ns {
        0..1_000_000 => (1_000, "us"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    match ns % unit * 10 / unit {
        0 => format!("{}{name}", ns / unit),
        tenths => format!("{}.{tenths}{name}", ns / unit),
    }
}

/// A length of time: `59s`, `2m03s`, `1h02m`, `3d04h`.
#[must_use]
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_stay_short() {
        let counts = [0, 99_999, 100_000, 1_234_567, 999_999_999, u64::MAX];
        let shown = ["0", "99999", "100k", "1.2M", "999M", "18446744T"];
        assert_eq!(counts.map(count), shown);
        assert_eq!(
            [0.0, 0.01, 3.24, 9.96, 123.4].map(rate),
            ["0", "0.1", "3.2", "10", "123"]
        );
        assert_eq!(
            [500_000, 2_500_000, 1_000_000_000, 1_500_000_000, u64::MAX].map(latency),
            ["500us", "2.5ms", "1s", "1.5s", ">31.5s"]
        );
        assert_eq!(
            [5, 125, 3_720, 100_000].map(span),
            ["5s", "2m05s", "1h02m", "1d03h"]
        );
    }

    #[test]
    fn what_commands_a_terminal_is_taken_out() {
        assert_eq!(printable("a\\x1b \"b\""), "a\\x1b \"b\"");
        assert_eq!(printable("\u{1b}[2J\u{9b}x\n"), "?[2J?x?");
        assert_eq!(printable("a\u{202e}b\u{200b}c\u{301}"), "a?b?c?");
        assert_eq!(printable("gr\u{fc}n"), "gr\u{fc}n");
        assert_eq!(printable(&"x".repeat(5000)).len(), MOST);
    }

    proptest! {
        #[test]
        fn nothing_is_left_that_is_no_character_with_a_place(text in "\\PC*|(?s).*") {
            prop_assert!(printable(&text).chars().all(is_printable));
        }
    }
}
