//! The order of Debian versions: `[epoch:]upstream[-revision]`, compared as dpkg does
//! (Debian policy, section 5.6.12).

use std::cmp::Ordering;

/// Compares two versions.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    let (left_epoch, left) = split_epoch(left);
    let (right_epoch, right) = split_epoch(right);
    let (left_upstream, left_revision) = split_revision(left);
    let (right_upstream, right_revision) = split_revision(right);
    number(left_epoch, right_epoch)
        .then_with(|| part(left_upstream, right_upstream))
        .then_with(|| part(left_revision, right_revision))
}

fn split_epoch(version: &str) -> (&str, &str) {
    version.split_once(':').unwrap_or(("0", version))
}

fn split_revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Alternates between a part without digits and a number until one differs.
fn part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_text, left_rest) = split_at_first(left, |c| c.is_ascii_digit());
        let (right_text, right_rest) = split_at_first(right, |c| c.is_ascii_digit());
        let (left_number, left_after) = split_at_first(left_rest, |c| !c.is_ascii_digit());
        let (right_number, right_after) = split_at_first(right_rest, |c| !c.is_ascii_digit());
        let order = text(left_text, right_text).then_with(|| number(left_number, right_number));
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_after, right_after);
    }
    Ordering::Equal
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

/// A tilde sorts before the end, the end before letters, letters before all else.
fn text(left: &str, right: &str) -> Ordering {
    let weight = |c: Option<char>| match c {
        Some('~') => 0_u32,
        None => 1,
        Some(c) if c.is_ascii_alphabetic() => 2 + u32::from(c),
        Some(c) => 0x1000 + u32::from(c),
    };
    let (mut left, mut right) = (left.chars(), right.chars());
    loop {
        let (l, r) = (left.next(), right.next());
        match weight(l).cmp(&weight(r)) {
            Ordering::Equal if l.is_none() => return Ordering::Equal,
            Ordering::Equal => {}
            order => return order,
        }
    }
}

/// Numbers of any length.
fn number(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rising_order() {
        let rising = [
            "1.0~~",
            "1.0~~a",
            "1.0~",
            "1.0~rc1-1",
            "1.0",
            "1.0-0.1",
            "1.0-1~bpo1",
            "1.0-1",
            "1.0-1+b1",
            "1.0a",
            "1.0+deb1",
            "1.0.1",
            "1.2",
            "1.10",
            "5.10.99-1",
            "5.10.218-1",
            "5.10.223-1",
            "6.1.170-3",
            "6.1.176-1",
            "6.12.107-1",
            "6.12.107.1-1",
            "7.2.13-1",
            "1:0.1",
            "12:0",
        ];
        for (i, left) in rising.iter().enumerate() {
            for (j, right) in rising.iter().enumerate() {
                assert_eq!(compare(left, right), i.cmp(&j), "{left} against {right}");
            }
        }
    }

    #[test]
    fn different_spellings_of_the_same_version() {
        for (left, right) in [
            ("1.0", "0:1.0"),
            ("1.0", "1.00"),
            ("1.0-0", "1.0"),
            ("01", "1"),
        ] {
            assert_eq!(
                compare(left, right),
                Ordering::Equal,
                "{left} against {right}"
            );
        }
    }

    #[test]
    fn long_numbers_do_not_overflow() {
        let long = "1.99999999999999999999999999999999";
        assert_eq!(
            compare(long, "1.100000000000000000000000000000000"),
            Ordering::Less
        );
    }
}
