//! Moments as people write them: `14:25`, `-5m`, `2026-11-21 14:25`, RFC 3339.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, ToSpan as _, Zoned, civil};
use thiserror::Error;

/// A moment, before it is known what time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long ago.
    Ago(Duration),
    /// The latest such time of day, local.
    Time(civil::Time),
    /// A local date and time.
    Local(civil::DateTime),
    /// A point in time.
    Exact(Timestamp),
}

/// Why a text is no moment.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MomentError {
    /// It has no known form.
    #[error(
        "expected a time such as 14:25, 14:25:30, \"2026-11-21 14:25\", \
         2026-11-21T14:25:00+01:00, or -5m for five minutes ago"
    )]
    Form,
    /// There is no such moment in the local time zone, or it is out of range.
    #[error("there is no such time here")]
    Never,
}

/// Reads a moment.
///
/// # Errors
/// For anything else than what [`Moment`] lists.
pub fn parse_moment(text: &str) -> Result<Moment, MomentError> {
    let text = text.trim();
    if text == "now" {
        return Ok(Moment::Ago(Duration::ZERO));
    }
    if let Some(ago) = text.strip_prefix('-') {
        let ago: SignedDuration = ago.parse().map_err(|_| MomentError::Form)?;
        let ago = Duration::try_from(ago).map_err(|_| MomentError::Form)?;
        return Ok(Moment::Ago(ago));
    }
    if !text.contains([':', '-']) {
        return Err(MomentError::Form); // an hour alone, or a year
    }
    if let Ok(exact) = text.parse() {
        return Ok(Moment::Exact(exact));
    }
    // A date alone is the beginning of its day.
    if let Ok(local) = text.parse() {
        return Ok(Moment::Local(local));
    }
    text.parse()
        .map(Moment::Time)
        .map_err(|_| MomentError::Form)
}

impl Moment {
    /// The moment, in ns since 1970, for somebody for whom it is `now`.
    ///
    /// # Errors
    /// When there is no such moment.
    pub fn wall_ns(&self, now: &Zoned) -> Result<u64, MomentError> {
        let never = |_| MomentError::Never;
        let timestamp = match self {
            Self::Ago(ago) => now.timestamp().checked_sub(*ago).map_err(never)?,
            Self::Exact(timestamp) => *timestamp,
            Self::Local(local) => local
                .to_zoned(now.time_zone().clone())
                .map_err(never)?
                .timestamp(),
            Self::Time(time) => {
                let at = |date: civil::Date| {
                    let zoned = date.to_datetime(*time).to_zoned(now.time_zone().clone());
                    zoned.map(|zoned| zoned.timestamp())
                };
                let today = at(now.date()).map_err(never)?;
                if today <= now.timestamp() {
                    today
                } else {
                    let yesterday = now.date().checked_sub(1.day()).map_err(never)?;
                    at(yesterday).map_err(never)?
                }
            }
        };
        u64::try_from(timestamp.as_nanosecond()).map_err(|_| MomentError::Never)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> String {
        let now: Zoned = "2026-11-21T14:30:07.5+01:00[+01:00]".parse().unwrap();
        let ns = parse_moment(text).unwrap().wall_ns(&now).unwrap();
        Timestamp::from_nanosecond(ns.into()).unwrap().to_string()
    }

    #[test]
    fn moments_as_people_write_them() {
        for (text, want) in [
            ("14:25", "2026-11-21T13:25:00Z"),
            ("14:25:30", "2026-11-21T13:25:30Z"),
            ("14:25:30.25", "2026-11-21T13:25:30.25Z"),
            ("23:50", "2026-11-20T22:50:00Z"),
            ("-5m", "2026-11-21T13:25:07.5Z"),
            ("-1h30m", "2026-11-21T12:00:07.5Z"),
            ("-90s", "2026-11-21T13:28:37.5Z"),
            ("now", "2026-11-21T13:30:07.5Z"),
            ("2026-11-20 08:00", "2026-11-20T07:00:00Z"),
            ("2026-11-20T08:00:01", "2026-11-20T07:00:01Z"),
            ("2026-11-20T08:00:00Z", "2026-11-20T08:00:00Z"),
            ("2026-11-20T08:00:00+05:30", "2026-11-20T02:30:00Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
        ] {
            assert_eq!(at(text), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_moment() {
        for text in ["", "-", "5m", "-5", "25:00", "tomorrow", "--5m", "14"] {
            assert_eq!(parse_moment(text), Err(MomentError::Form), "{text}");
        }
    }
}
