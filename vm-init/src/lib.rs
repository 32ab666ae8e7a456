//! What the host and the first process of a test guest have to agree on.
//!
//! The host ([`Manifest`]) tells the guest which modules to load and what to run; the guest
//! ([`Frame`]) tells the host what happened, one line each, over a serial port that nothing else
//! writes to. Both sides use these types, so the contract is in one place.

pub mod escape;
pub mod frame;
pub mod manifest;

pub use frame::{ExitCause, Frame, FrameError, Stream};
pub use manifest::{Manifest, ManifestError, Payload};

/// Where the guest finds its [`Manifest`].
pub const MANIFEST_PATH: &str = "/vm/manifest";

/// The serial port that carries [`Frame`]s. The kernel's console is `ttyS0`.
pub const RESULT_PORT: &str = "/dev/ttyS1";

/// A pipe to which payloads append result lines that a test runner would otherwise capture; the
/// guest sends each as it comes. Its path is in the payload's environment as [`REPORT_VARIABLE`].
pub const REPORT_PATH: &str = "/run/netobs-report";

/// Environment variable that names [`REPORT_PATH`].
pub const REPORT_VARIABLE: &str = "NETOBS_REPORT";

/// Regular files left here by payloads are sent to the host. Its path is in the payload's
/// environment as [`OUT_VARIABLE`].
pub const OUT_PATH: &str = "/out";

/// Environment variable that names [`OUT_PATH`].
pub const OUT_VARIABLE: &str = "NETOBS_OUT";
