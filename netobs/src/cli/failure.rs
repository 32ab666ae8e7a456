//! How an error leaves the process: as text on stderr, and as an exit code.

use std::{error::Error, fmt::Write, process::ExitCode};

use crate::{agent::Failure, config, web};

/// A command line that the parser takes and that still makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// An error with advice for the user, printed on a line of its own after the chain.
///
/// It stands in for the error that it carries: same message, same cause.
#[derive(Debug)]
pub struct WithHint {
    error: Box<dyn Error + Send + Sync>,
    hint: String,
}

impl WithHint {
    /// Adds `hint` to `error`: one sentence, lower case, what to do.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>, hint: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            hint: hint.into(),
        }
    }
}

impl From<Failure> for anyhow::Error {
    fn from(Failure { error, hint }: Failure) -> Self {
        match hint {
            Some(hint) => WithHint::new(error, hint).into(),
            None => error.into(),
        }
    }
}

impl std::fmt::Display for WithHint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for WithHint {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// The text for stderr: the chain of causes once, then the first hint in it.
///
/// Control characters are escaped, since parts of a message may come from the network or a file.
#[must_use]
pub fn report(error: &anyhow::Error) -> String {
    let mut text = format!("netobs: error: {}\n", printable(&format!("{error:#}")));
    let hint = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<WithHint>());
    if let Some(WithHint { hint, .. }) = hint {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "hint: {}", printable(hint));
    }
    text
}

fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// 2 for what the user has to mend in the command line or the configuration, 1 for the rest.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let usage = error.chain().any(|cause| {
        cause.is::<config::Error>() || cause.is::<web::SettingsError>() || cause.is::<UsageError>()
    });
    ExitCode::from(if usage { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn the_chain_is_printed_once_and_the_hint_after_it() {
        let cause = std::io::Error::other("c\u{1b}[31m");
        let error = anyhow::Error::from(cause).context("b");
        let hinted = anyhow::Error::new(WithHint::new(error, "try d")).context("a");
        assert_eq!(
            report(&hinted),
            "netobs: error: a: b: c\\u{1b}[31m\nhint: try d\n"
        );
        assert_eq!(report(&anyhow!("alone")), "netobs: error: alone\n");
    }

    #[test]
    fn a_configuration_error_is_usage_wherever_it_stands() {
        let path = std::path::Path::new("/nonexistent/netobs.toml");
        let failed = config::Config::resolve(Some(path), config::Overrides::default(), &[]);
        let error = failed.context("failed to start").unwrap_err();
        assert_eq!(exit_code(&error), ExitCode::from(2));
        assert_eq!(exit_code(&anyhow!("x")), ExitCode::from(1));
    }
}
