//! `/events`: what the flight recorder has, as JSON lines, streamed.
//!
//! The answer may be long, so it is made part by part as the client takes it: a client that takes
//! nothing for [`Limits::answer_timeout`](super::Limits) is let go of, and so is one that is not done
//! after [`LONGEST`]. Its body then ends without its last chunk, so that nobody takes it for whole.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, channel};

use super::EventLines;

/// Handed over at once.
const PART_BYTES: usize = 32 * 1024;
/// Parts that wait for the client.
const WAITING: usize = 2;
/// The longest that an answer may take as a whole.
const LONGEST: Duration = Duration::from_secs(600);

/// The answer took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer took too long")]
pub(super) struct TooLong;

/// Parts of the answer.
pub(super) type Parts = Receiver<Result<Bytes, TooLong>>;

/// Begins to make the answer.
pub(super) fn stream(lines: EventLines) -> Parts {
    let (sender, parts) = channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let mut part = String::new();
        for line in lines {
            part.push_str(&line);
            part.push('\n');
            if part.len() < PART_BYTES {
                continue;
            }
            let next = if begun.elapsed() > LONGEST {
                Err(TooLong)
            } else {
                Ok(std::mem::take(&mut part).into())
            };
            let last = next.is_err();
            // The client may be gone.
            if sender.blocking_send(next).is_err() || last {
                return;
            }
        }
        if !part.is_empty() {
            let _ = sender.blocking_send(Ok(part.into()));
        }
    });
    parts
}

/// The values of `since` and `until` in a query.
pub(super) fn bounds(query: Option<&str>) -> [Option<String>; 2] {
    let value = |wanted: &str| {
        let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let found = pairs.find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.into_owned())
    };
    [value("since"), value("until")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let [since, until] = bounds(Some("until=14%3A35&since=2026-11-21T14:25:00%2B01:00&x"));
        assert_eq!(since.as_deref(), Some("2026-11-21T14:25:00+01:00"));
        assert_eq!(until.as_deref(), Some("14:35"));
        assert_eq!(bounds(Some("since=-5m")), [Some("-5m".to_owned()), None]);
        assert_eq!(bounds(None), [None, None]);
    }
}
