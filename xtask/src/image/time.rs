//! The one time stamp of an image: when its source was committed.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, workspace};

/// The end of the year 9999: RFC 3339 has four digits.
const LATEST: u64 = 253_402_300_799;

/// Seconds since 1970: `SOURCE_DATE_EPOCH` if set (<https://reproducible-builds.org/specs/>), else
/// the last commit's, else 0.
pub(super) fn of_the_source() -> Result<u64> {
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
pub(super) fn rfc3339(seconds: u64) -> String {
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while days >= length_of(year) {
        days -= length_of(year);
        year += 1;
    }
    let february = if length_of(year) == 366 { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{:02}Z",
        days + 1,
        second % 60
    )
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
    }
}
