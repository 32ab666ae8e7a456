//! Flags of commands that can look at the past: a recording, or what a running agent has recorded.

mod client;

use std::path::PathBuf;

use clap::Args;
use jiff::Zoned;

pub(super) use self::client::Request;
use super::failure::UsageError;
use crate::{
    recorder::{Damage, Range},
    trace::{Moment, parse_moment},
};

/// Where the past is, and which part of it.
#[derive(Clone, Debug, Args)]
pub(super) struct PastArgs {
    /// Read what `netobs run --recorder.path` has recorded: its folder, or one file
    #[arg(
        long,
        help_heading = "The past",
        value_name = "FILE|FOLDER",
        conflicts_with = "agent"
    )]
    pub(super) from: Option<PathBuf>,
    /// Ask a running agent for what it has recorded, such as http://127.0.0.1:10977
    #[arg(long, help_heading = "The past", value_name = "URL")]
    pub(super) agent: Option<String>,
    /// File with the certificates that the agent's is checked by [default: the system's]
    #[arg(
        long,
        help_heading = "The past",
        value_name = "FILE",
        requires = "agent"
    )]
    agent_ca: Option<PathBuf>,
    /// From when on: 14:25, "2026-11-21 14:25", RFC 3339, or -5m for five minutes ago
    #[arg(long, help_heading = "The past", value_name = "TIME", value_parser = parse_moment, allow_hyphen_values = true)]
    since: Option<Moment>,
    /// Until when
    #[arg(long, help_heading = "The past", value_name = "TIME", value_parser = parse_moment, allow_hyphen_values = true)]
    until: Option<Moment>,
}

impl PastArgs {
    /// Whether the past is asked for, not what happens now.
    pub(super) fn is_asked_for(&self) -> bool {
        self.from.is_some() || self.agent.is_some()
    }

    /// The span of time.
    pub(super) fn range(&self) -> Result<Range, UsageError> {
        if (self.since.is_some() || self.until.is_some()) && !self.is_asked_for() {
            return Err(UsageError(
                "--since and --until need --from or --agent: without them, it is looked at what \
                 happens now"
                    .to_owned(),
            ));
        }
        let now = Zoned::now();
        let at = |moment: &Option<Moment>, flag: &str| {
            let ns = moment.as_ref().map(|moment| moment.wall_ns(&now));
            ns.transpose()
                .map_err(|error| UsageError(format!("{flag}: {error}")))
        };
        let range = Range {
            since_ns: at(&self.since, "--since")?,
            until_ns: at(&self.until, "--until")?,
        };
        match (range.since_ns, range.until_ns) {
            (Some(since), Some(until)) if since > until => {
                Err(UsageError("--since is later than --until".to_owned()))
            }
            _ => Ok(range),
        }
    }

    /// What to ask the agent at this URL.
    pub(super) fn request(&self, url: &str, range: Range) -> Result<Request, UsageError> {
        Request::new(url, self.agent_ca.as_deref(), range)
    }
}

/// What of the recording could not be read.
pub(super) fn tell(damage: &Damage) {
    let Damage {
        torn,
        bytes,
        unknown,
        files,
    } = damage;
    if *torn > 0 || *bytes > 0 {
        eprintln!(
            "netobs: {torn} files of the recording end in the middle of a block, and {bytes} bytes could \
             not be read, as a crash or a full disk leaves them"
        );
    }
    if *unknown > 0 {
        eprintln!(
            "netobs: {unknown} events were recorded by another version and are not known here"
        );
    }
    for file in files {
        eprintln!("netobs: {file}");
    }
}
