//! The HTTP surface: `/metrics`, `/status`, the health paths and a landing page.
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
mod gate;
mod landing;
mod limits;
mod listen;
mod live;
mod rate;
mod reply;
mod routes;
mod server;
mod settings;
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

    /// Whether the network is healthy as far as path probes measure it, and the particulars.
    fn network_health(&self) -> (bool, serde_json::Value);

    /// Whether every probe that can attach has, existing sockets are found and baselines taken.
    fn is_ready(&self) -> bool;

    /// Whether the agent still does its work; `false` asks a supervisor for a restart.
    fn is_healthy(&self) -> bool;
}
