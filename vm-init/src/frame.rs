//! What the guest says: one numbered line per event.
//!
//! `nvm1 <sequence> <kind> <fields>`, written to a serial port. The numbers start at 0 and have no
//! gap, so that the host knows when a line was lost or torn.

use std::fmt;

use crate::escape::{Spaces, decode, decode_text, encode};

/// First word of every line.
const MAGIC: &str = "nvm1";

/// Which of a payload's outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// The report file.
    Report,
    /// Written about the payload by the guest's first process.
    Init,
}

/// How a payload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Killed after its time was over.
    TimedOut,
    /// It could not be started.
    NotStarted,
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::NotStarted => f.write_str("could not be started"),
        }
    }
}

/// One thing that happened in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first process runs. Kernel release as `uname -r` has it.
    Boot {
        /// For example `6.1.0-50-cloud-amd64`.
        release: String,
    },
    /// A module was not loaded, or a file system not mounted.
    Fault {
        /// What was tried, and the error.
        text: String,
    },
    /// A payload is about to start.
    Start {
        /// Its place in the manifest, from 0.
        payload: usize,
    },
    /// A line of a payload's output, without its end.
    Line {
        /// Which payload.
        payload: usize,
        /// Which output.
        stream: Stream,
        /// The line; bytes that are not UTF-8 are replaced by the host.
        text: String,
    },
    /// A payload has ended, and nothing of it runs any more.
    Exit {
        /// Which payload.
        payload: usize,
        /// How.
        cause: ExitCause,
        /// How long it ran, in milliseconds.
        millis: u64,
    },
    /// A part of a file; parts come in order.
    File {
        /// Name relative to the guest's output folder.
        name: String,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Everything was run; the guest powers off.
    Done,
}

/// Why a line is no frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The line does not start as frames do.
    #[error("not a frame")]
    NotAFrame,
    /// The line starts like a frame, and then does not read as one.
    #[error("broken frame")]
    Broken,
}

impl Frame {
    /// The line for this frame, with its end. Line text longer than `u16::MAX` bytes should have
    /// been cut by the caller.
    #[must_use]
    pub fn encode(&self, sequence: u64) -> String {
        let body = match self {
            Self::Boot { release } => format!("boot {}", encode(release.as_bytes(), Spaces::Keep)),
            Self::Fault { text } => format!("fault {}", encode(text.as_bytes(), Spaces::Keep)),
            Self::Start { payload } => format!("start {payload}"),
            Self::Line {
                payload,
                stream,
                text,
            } => {
                let stream = match stream {
                    Stream::Out => 'o',
                    Stream::Err => 'e',
                    Stream::Report => 'r',
                    Stream::Init => 'i',
                };
                format!(
                    "line {payload} {stream} {}",
                    encode(text.as_bytes(), Spaces::Keep)
                )
            }
            Self::Exit {
                payload,
                cause,
                millis,
            } => {
                let (word, number) = match cause {
                    ExitCause::Code(code) => ("code", *code),
                    ExitCause::Signal(signal) => ("signal", *signal),
                    ExitCause::TimedOut => ("timeout", 0),
                    ExitCause::NotStarted => ("notstarted", 0),
                };
                format!("exit {payload} {word} {number} {millis}")
            }
            Self::File { name, bytes } => format!(
                "file {} {}",
                encode(name.as_bytes(), Spaces::Escape),
                encode(bytes, Spaces::Keep)
            ),
            Self::Done => "done".to_owned(),
        };
        format!("{MAGIC} {sequence} {body}\n")
    }

    /// The sequence number and frame of a line; the line's end may be there or not.
    ///
    /// # Errors
    /// When the line is not one that [`encode`](Self::encode) makes.
    pub fn decode(line: &str) -> Result<(u64, Self), FrameError> {
        let line = line.trim_end_matches(['\n', '\r']);
        let rest = line
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.strip_prefix(' '))
            .ok_or(FrameError::NotAFrame)?;
        Self::decode_body(rest).ok_or(FrameError::Broken)
    }

    fn decode_body(rest: &str) -> Option<(u64, Self)> {
        let (sequence, rest) = rest.split_once(' ')?;
        let sequence = sequence.parse().ok()?;
        let (kind, fields) = rest.split_once(' ').unwrap_or((rest, ""));
        let frame = match kind {
            "boot" => Self::Boot {
                release: decode_text(fields)?,
            },
            "fault" => Self::Fault {
                text: decode_text(fields)?,
            },
            "start" => Self::Start {
                payload: fields.parse().ok()?,
            },
            "line" => {
                let (payload, fields) = fields.split_once(' ')?;
                let (stream, text) = fields.split_once(' ')?;
                let stream = match stream {
                    "o" => Stream::Out,
                    "e" => Stream::Err,
                    "r" => Stream::Report,
                    "i" => Stream::Init,
                    _ => return None,
                };
                Self::Line {
                    payload: payload.parse().ok()?,
                    stream,
                    text: decode_text(text)?,
                }
            }
            "exit" => {
                let mut words = fields.split(' ');
                let payload = words.next()?.parse().ok()?;
                let word = words.next()?;
                let number = words.next()?.parse().ok()?;
                let millis = words.next()?.parse().ok()?;
                let cause = match word {
                    "code" => ExitCause::Code(number),
                    "signal" => ExitCause::Signal(number),
                    "timeout" => ExitCause::TimedOut,
                    "notstarted" => ExitCause::NotStarted,
                    _ => return None,
                };
                Self::Exit {
                    payload,
                    cause,
                    millis,
                }
            }
            "file" => {
                let (name, bytes) = fields.split_once(' ')?;
                Self::File {
                    name: decode_text(name)?,
                    bytes: decode(bytes)?,
                }
            }
            "done" if fields.is_empty() => Self::Done,
            _ => return None,
        };
        Some((sequence, frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_round_trip() {
        let frames = [
            Frame::Boot {
                release: "6.1.0-50-cloud-amd64".into(),
            },
            Frame::Fault {
                text: "mount /sys: EPERM (100%)\nsecond line".into(),
            },
            Frame::Start { payload: 3 },
            Frame::Line {
                payload: 0,
                stream: Stream::Out,
                text: "test a ... ok".into(),
            },
            Frame::Line {
                payload: 1,
                stream: Stream::Err,
                text: String::new(),
            },
            Frame::Line {
                payload: 1,
                stream: Stream::Report,
                text: "  - ".into(),
            },
            Frame::Line {
                payload: 1,
                stream: Stream::Init,
                text: "-".into(),
            },
            Frame::Exit {
                payload: 0,
                cause: ExitCause::Code(101),
                millis: 12,
            },
            Frame::Exit {
                payload: 0,
                cause: ExitCause::Signal(9),
                millis: 0,
            },
            Frame::Exit {
                payload: 0,
                cause: ExitCause::TimedOut,
                millis: u64::MAX,
            },
            Frame::Exit {
                payload: 0,
                cause: ExitCause::NotStarted,
                millis: 0,
            },
            Frame::File {
                name: "a b/c".into(),
                bytes: vec![0, 10, 13, 255, 32],
            },
            Frame::Done,
        ];
        for (sequence, frame) in (7..).zip(frames) {
            let line = frame.encode(sequence);
            assert_eq!(line.matches('\n').count(), 1);
            assert_eq!(Frame::decode(&line), Ok((sequence, frame)));
        }
    }

    #[test]
    fn noise_is_told_from_torn_frames() {
        assert_eq!(Frame::decode("[    0.5] hello"), Err(FrameError::NotAFrame));
        assert_eq!(Frame::decode(""), Err(FrameError::NotAFrame));
        for torn in [
            "nvm1 ",
            "nvm1 x done",
            "nvm1 1 exit 0 code",
            "nvm1 1 line 0 z a",
            "nvm1 1 boo",
        ] {
            assert_eq!(Frame::decode(torn), Err(FrameError::Broken), "{torn}");
        }
    }
}
