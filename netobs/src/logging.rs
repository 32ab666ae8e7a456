//! Messages on stderr, as text or JSON. Messages of libraries that use `log` come along.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry, fmt,
    fmt::MakeWriter,
    layer::SubscriberExt,
    reload,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::{Log, LogFormat, LogLevel};

/// Logging is set up already, by this process or something it embeds.
#[derive(Debug, Error)]
#[error("failed to set up logging")]
pub struct LoggingError(#[from] TryInitError);

/// Changes the level while the process runs.
#[derive(Clone, Debug)]
pub struct LevelControl(reload::Handle<LevelFilter, Registry>);

impl LevelControl {
    /// From now on messages of this level and above are written. Libraries that use `log` keep the
    /// level of the start where that is stricter.
    pub fn set(&self, level: LogLevel) {
        // It fails when the subscriber is gone, and then there is nothing to change.
        let _ = self.0.reload(filter(level));
    }
}

/// Sends all messages from now on to stderr. Text is coloured when stderr is a terminal and
/// `NO_COLOR` is unset or empty.
///
/// # Errors
/// When called a second time.
pub fn init(log: Log) -> Result<LevelControl, LoggingError> {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stderr().is_terminal() && !plain;
    begin(log, colour, io::stderr)
}

/// The same, to another place than stderr and without colours.
///
/// # Errors
/// When called a second time, or after [`init`].
pub fn init_into<W>(log: Log, writer: W) -> Result<LevelControl, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    begin(log, false, writer)
}

fn begin<W>(log: Log, colour: bool, writer: W) -> Result<LevelControl, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(log.level));
    // `try_init` also takes over the `log` records.
    match log.format {
        LogFormat::Text => text(filter, colour, writer).try_init()?,
        LogFormat::Json => json(filter, writer).try_init()?,
    }
    Ok(LevelControl(handle))
}

fn text<F, W>(filter: F, colour: bool, writer: W) -> impl Subscriber + Send + Sync
where
    F: Layer<Registry> + Send + Sync,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::registry()
        .with(filter)
        .with(fmt::layer().with_ansi(colour).with_writer(writer))
}

fn json<F, W>(filter: F, writer: W) -> impl Subscriber + Send + Sync
where
    F: Layer<Registry> + Send + Sync,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::registry()
        .with(filter)
        .with(fmt::layer().json().flatten_event(true).with_writer(writer))
}

const fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn speak() {
        tracing::info!("unheard");
        tracing::warn!(probe = "tcp_reset", "a \u{1b}[31mred\u{1b}[0m word");
    }

    #[test]
    fn text_is_plain_without_a_terminal() {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = text(filter(LogLevel::Warn), false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, speak);
        let text = page.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(" WARN netobs::logging::tests: a "), "{text}");
        assert!(text.ends_with("probe=\"tcp_reset\"\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = json(filter(LogLevel::Warn), move || writer.clone());
        tracing::subscriber::with_default(subscriber, speak);
        let text = page.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["probe"], "tcp_reset");
        assert_eq!(object["message"], "a \u{1b}[31mred\u{1b}[0m word");
    }
}
