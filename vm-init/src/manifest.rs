//! What the host asks for: a few lines of text in the guest's initial file system.

use std::time::Duration;

use crate::escape::{Spaces, decode_text, encode};

/// One program to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// Path in the guest.
    pub path: String,
    /// Arguments, without the program's own name.
    pub args: Vec<String>,
    /// Environment, on top of `PATH`, `HOME` and the paths this crate names.
    pub env: Vec<(String, String)>,
    /// After this time it is killed, with everything it started.
    pub timeout: Duration,
}

/// All that the guest has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Seconds since 1970; the guest's clock is set to it when it is behind.
    pub epoch: u64,
    /// Paths of module files, in an order in which they can be loaded.
    pub modules: Vec<String>,
    /// Programs, run one after another.
    pub payloads: Vec<Payload>,
}

/// Why a manifest cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("failed to read manifest line {line}")]
pub struct ManifestError {
    /// Number of the line, from 1.
    pub line: usize,
}

impl Manifest {
    /// The text that [`parse`](Self::parse) reads.
    #[must_use]
    pub fn encode(&self) -> String {
        let word = |text: &str| encode(text.as_bytes(), Spaces::Escape);
        let mut lines = vec![format!("epoch {}", self.epoch)];
        lines.extend(
            self.modules
                .iter()
                .map(|path| format!("module {}", word(path))),
        );
        for payload in &self.payloads {
            let millis = payload.timeout.as_millis();
            lines.push(format!("payload {} {millis}", word(&payload.path)));
            lines.extend(payload.args.iter().map(|arg| format!("arg {}", word(arg))));
            lines.extend(
                payload
                    .env
                    .iter()
                    .map(|(k, v)| format!("env {} {}", word(k), word(v))),
            );
        }
        lines.push(String::new());
        lines.join("\n")
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// With the number of the first line that does not fit.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let mut manifest = Self::default();
        for (index, line) in text.lines().enumerate() {
            manifest
                .line(line)
                .ok_or(ManifestError { line: index + 1 })?;
        }
        Ok(manifest)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let (kind, fields) = line.split_once(' ')?;
        let mut words = fields.split(' ');
        let first = words.next()?;
        let second = words.next();
        if words.next().is_some() {
            return None;
        }
        match (kind, second) {
            ("epoch", None) => self.epoch = first.parse().ok()?,
            ("module", None) => self.modules.push(decode_text(first)?),
            ("payload", Some(millis)) => self.payloads.push(Payload {
                path: decode_text(first)?,
                timeout: Duration::from_millis(millis.parse().ok()?),
                ..Payload::default()
            }),
            ("arg", None) => self.payloads.last_mut()?.args.push(decode_text(first)?),
            ("env", Some(value)) => {
                let pair = (decode_text(first)?, decode_text(value)?);
                self.payloads.last_mut()?.env.push(pair);
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_round_trip() {
        let manifest = Manifest {
            epoch: 1_700_000_000,
            modules: vec!["/vm/modules/00-veth.ko".into()],
            payloads: vec![
                Payload {
                    path: "/vm/payload/a b".into(),
                    args: vec!["--exact".into(), String::new(), "a\nb".into()],
                    env: vec![
                        ("NETOBS_REQUIRE".into(), "1".into()),
                        ("E".into(), String::new()),
                    ],
                    timeout: Duration::from_millis(1500),
                },
                Payload {
                    path: "/x".into(),
                    ..Payload::default()
                },
            ],
        };
        assert_eq!(Manifest::parse(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn says_which_line_is_wrong() {
        for text in [
            "epoch 1\narg x\n",
            "epoch 1\nmodule\n",
            "epoch 1\nepoch x",
            "epoch 1\nenv a b c",
        ] {
            assert_eq!(
                Manifest::parse(text),
                Err(ManifestError { line: 2 }),
                "{text:?}"
            );
        }
    }
}
