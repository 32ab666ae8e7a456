//! What reading one setting gave: a value, or the reason there is none.

use std::fmt;

/// Longest value taken seriously. The kernel's own longest (a list of reserved
/// ports) stays under a page or so; anything longer is cut off and called malformed.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// How the text of a setting is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One whole number.
    Int,
    /// A fixed count of whole numbers, such as `tcp_rmem`.
    Vector(usize),
    /// Words, such as `tcp_congestion_control`.
    Text,
    /// A secret: only whether it is set is kept, never the value.
    Secret,
}

/// All that is ever kept of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretState {
    /// All zeros: the kernel makes one up at first use.
    Unset,
    /// One key.
    One,
    /// A primary and a backup key.
    Two,
}

impl fmt::Display for SecretState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unset => "(not set)",
            Self::One => "(one key set)",
            Self::Two => "(two keys set)",
        })
    }
}

/// The outcome of reading one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A whole number.
    Int(i64),
    /// Several whole numbers.
    Vector(Vec<i64>),
    /// Words.
    Text(String),
    /// What may be known of a secret.
    Secret(SecretState),
    /// The file is not there: an older kernel, a module not loaded, or not in this namespace.
    Missing,
    /// The file is there and could not be read; the reason, in words.
    Unreadable(String),
    /// The file held something this setting never holds.
    Malformed,
}

impl Reading {
    /// Reads `raw`, the content of the setting's file.
    #[must_use]
    pub fn parse(kind: Kind, raw: &str) -> Self {
        if raw.len() > MAX_VALUE_BYTES {
            return Self::Malformed;
        }
        let raw = raw.trim();
        match kind {
            Kind::Int => raw.parse().map_or(Self::Malformed, Self::Int),
            Kind::Vector(want) => {
                let parsed: Result<Vec<i64>, _> = raw
                    .split_whitespace()
                    .take(want + 1)
                    .map(str::parse)
                    .collect();
                match parsed {
                    Ok(numbers) if numbers.len() == want => Self::Vector(numbers),
                    _ => Self::Malformed,
                }
            }
            Kind::Text => Self::Text(raw.chars().map(printable).collect()),
            Kind::Secret => Self::Secret(secret_state(raw)),
        }
    }

    /// The value as `sysctl` prints it; `None` where there is none.
    #[must_use]
    pub fn value(&self) -> Option<String> {
        match self {
            Self::Int(n) => Some(n.to_string()),
            Self::Vector(v) => Some(join(v)),
            Self::Text(t) => Some(t.clone()),
            Self::Secret(s) => Some(s.to_string()),
            Self::Missing | Self::Unreadable(_) | Self::Malformed => None,
        }
    }

    /// Every number in the value, for metrics. Empty for words and secrets.
    #[must_use]
    pub fn numbers(&self) -> &[i64] {
        match self {
            Self::Int(n) => std::slice::from_ref(n),
            Self::Vector(v) => v,
            _ => &[],
        }
    }
}

/// Numbers with one space between them.
#[must_use]
pub fn join(numbers: &[i64]) -> String {
    let words: Vec<String> = numbers.iter().map(i64::to_string).collect();
    words.join(" ")
}

/// Control characters would let a value draw on the reader's terminal.
fn printable(c: char) -> char {
    if c == '\t' {
        ' '
    } else if c.is_control() {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

/// `tcp_fastopen_key` holds one or two keys with a comma between; zeros are no key.
fn secret_state(raw: &str) -> SecretState {
    let set = |key: &&str| key.bytes().any(|b| b != b'0' && b != b'-');
    match raw.split(',').filter(set).count() {
        0 => SecretState::Unset,
        1 => SecretState::One,
        _ => SecretState::Two,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Kind, Reading, SecretState};

    #[test]
    fn values_are_read_by_kind() {
        for (kind, raw, want) in [
            (Kind::Int, "1\n", Reading::Int(1)),
            (Kind::Int, "-1", Reading::Int(-1)),
            (Kind::Int, "", Reading::Malformed),
            (Kind::Int, "1 2", Reading::Malformed),
            (Kind::Int, "99999999999999999999", Reading::Malformed),
            (
                Kind::Vector(3),
                "4096\t131072\t6291456\n",
                Reading::Vector(vec![4096, 131_072, 6_291_456]),
            ),
            (Kind::Vector(3), "1 2", Reading::Malformed),
            (Kind::Vector(2), "1 2 3", Reading::Malformed),
            (Kind::Text, "cubic\n", Reading::Text("cubic".into())),
            (
                Kind::Text,
                "a\u{1b}[2J",
                Reading::Text("a\u{fffd}[2J".into()),
            ),
        ] {
            assert_eq!(Reading::parse(kind, raw), want, "{raw:?}");
        }
    }

    #[test]
    fn a_secret_is_only_ever_a_state() {
        let zero = "00000000-00000000-00000000-00000000";
        let key = "0badc0de-0badc0de-0badc0de-0badc0de";
        for (raw, want) in [
            (zero.to_owned(), SecretState::Unset),
            (String::new(), SecretState::Unset),
            (key.to_owned(), SecretState::One),
            (format!("{key},{key}"), SecretState::Two),
            (format!("{key},{zero}"), SecretState::One),
        ] {
            let reading = Reading::parse(Kind::Secret, &raw);
            assert_eq!(reading, Reading::Secret(want));
            assert!(!format!("{reading:?} {:?}", reading.value()).contains("c0de"));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_reading(raw in ".{0,200}", width in 0usize..5) {
            for kind in [Kind::Int, Kind::Vector(width), Kind::Text, Kind::Secret] {
                let reading = Reading::parse(kind, &raw);
                if let Some(value) = reading.value() {
                    prop_assert!(!value.chars().any(char::is_control));
                }
            }
        }
    }
}
