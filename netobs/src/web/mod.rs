//! The HTTP surface: `/metrics`, `/events`, `/status`, the health paths and a landing page.
//!
//! Everything a client sends is hostile until proven otherwise: connections, requests in flight,
//! header sizes and the time any of them may take are all bounded by [`Limits`]. Only GET and HEAD
//! are answered, no request body is ever read, and nothing here can change the host.
//!
//! ```text
//! listen  -> server -> connection (deadlines, tls) -> gate (rate, auth) -> routes -> reply
//!                                 settings -> live -^   { accept, text004, landing } -^
//! ```

mod accept;
mod auth;
mod connection;
mod deadline;
mod events;
mod gate;
mod landing;
mod limits;
mod listen;
mod live;
mod pressure;
mod rate;
mod reply;
mod routes;
mod server;
mod settings;
mod share;
pub mod text004;
mod tls;

pub use self::{
    accept::{Format, negotiate_format, negotiate_gzip},
    limits::Limits,
    listen::BindError,
    live::WebFile,
    server::{Options, ServeError, Server},
    settings::{Place, SettingsError},
};

/// Recorded events, one JSON object each, without line breaks. Read on a thread that may block.
pub type EventLines = Box<dyn Iterator<Item = String> + Send>;

/// Why there are no events to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoEvents {
    /// The flight recorder is switched off.
    Off,
    /// `since` or `until` is no time; why.
    Time(String),
}

/// What the agent shows to the world. The server asks; it never keeps an answer.
///
/// The methods run on the server's own thread and must not block: a scrape reads the kernel's maps
/// and formats numbers, and nothing else.
pub trait Surface: Send + Sync + 'static {
    /// All metrics as OpenMetrics 1.0.0 text, ended by `# EOF`.
    ///
    /// # Errors
    /// When a family cannot be encoded. The client then sees status 500 and no metrics at all,
    /// because half a scrape would look like series that went away.
    fn openmetrics(&self) -> Result<String, std::fmt::Error>;

    /// The agent's state for people and scripts: probes, methods, exactness, loss, uptime.
    fn status(&self) -> serde_json::Value;

    /// The connections of which there is most to tell, each with its story in words.
    fn stories(&self) -> serde_json::Value;

    /// Events that were recorded between two times, as the client wrote them.
    ///
    /// # Errors
    /// When there are none to be had.
    fn events(&self, _since: Option<&str>, _until: Option<&str>) -> Result<EventLines, NoEvents> {
        Err(NoEvents::Off)
    }

    /// Whether the network is healthy as far as path probes measure it, and the particulars.
    fn network_health(&self) -> (bool, serde_json::Value);

    /// Whether every probe that can attach has, existing sockets are found and baselines taken.
    fn is_ready(&self) -> bool;

    /// Whether the agent still does its work; `false` asks a supervisor for a restart.
    fn is_healthy(&self) -> bool;
}

#[cfg(test)]
mod tests {
    /// Runs to the end what waits, on this thread.
    pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }
}
