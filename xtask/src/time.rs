//! The one time stamp of an image or a package: when its source was committed.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, workspace};

/// The end of the year 9999: RFC 3339 has four digits.
const LATEST: u64 = 253_402_300_799;

/// Seconds since 1970: `SOURCE_DATE_EPOCH` if set (<https://reproducible-builds.org/specs/>), else
/// the last commit's, else 0.
pub(crate) fn of_the_source() -> Result<u64> {
    if let Some(given) = env::var_os("SOURCE_DATE_EPOCH") {
        return given
            .to_str()
            .and_then(|text| text.parse().ok())
            .filter(|seconds| *seconds <= LATEST)
            .with_context(|| {
                format!("SOURCE_DATE_EPOCH is {}: it takes seconds", given.display())
            });
    }
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(workspace::root())
        .args(["log", "-1", "--format=%ct"]);
    Ok(command::output(&mut git)
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0))
}

/// A time in UTC as RFC 3339 writes it.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = clock(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A time in UTC as RFC 2822 and Debian's changelogs write it.
pub(crate) fn rfc2822(seconds: u64) -> String {
    const WEEK: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const YEAR: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = seconds / 86_400;
    let (year, month, day) = date(days);
    let (hour, minute, second) = clock(seconds);
    let weekday = (0..7).zip(WEEK).find(|(at, _)| days % 7 == *at);
    let month = (1..).zip(YEAR).find(|(at, _)| month == *at);
    format!(
        "{}, {day:02} {} {year} {hour:02}:{minute:02}:{second:02} +0000",
        weekday.unwrap_or_default().1,
        month.unwrap_or_default().1
    )
}

/// Year, month and day of the month.
fn date(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while days >= length_of(year) {
        days -= length_of(year);
        year += 1;
    }
    let february = length_of(year) - 337;
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

/// Hour, minute and second.
fn clock(seconds: u64) -> (u64, u64, u64) {
    let second = seconds % 86_400;
    (second / 3600, second / 60 % 60, second % 60)
}

/// Days in a year.
fn length_of(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_times_as_others_do() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
        assert_eq!(rfc2822(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(rfc2822(1_735_689_599), "Tue, 31 Dec 2024 23:59:59 +0000");
    }
}
