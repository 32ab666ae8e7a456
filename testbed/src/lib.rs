//! Network namespaces, packets and witnesses for kernel tests and benchmarks.
//!
//! The crate makes the kernel produce *exactly N* TCP events inside network namespaces of its own
//! and reads the kernel's counters through a second, independent path. It knows nothing of the
//! agent: whatever it says about the kernel comes from `/proc`, `sock_diag` or the wire.
//!
//! - [`NetNs`]: a namespace that disappears with its owner, also after a panic or a killed run.
//! - [`Link`], [`Rule`]: a veth pair between two namespaces and nft rules that lose packets.
//! - [`Listener`], [`ListenGroup`], [`connect_nonblocking`]: ordinary sockets, queues filled on demand.
//! - [`RawPeer`], [`RawClient`], [`Segment`]: the other end of a connection, written by hand, over TUN.
//! - [`Counters`], [`wait_until`], [`witness::sockets`]: the second witness.
//! - [`feature`], [`require`]: what this kernel and this machine have.
//! - [`scenario`]: ready-made events, each counted by the witness before it returns.
//!
//! This is test code: what a test can handle is an [`anyhow::Error`], and the few places where it
//! could not go on (a counter name that no kernel has, a namespace that cannot be entered) panic.
//!
//! ```no_run
//! use testbed::{Counters, Listener, NetNs, scenario};
//!
//! # fn main() -> anyhow::Result<()> {
//! let ns = NetNs::new("demo")?;
//! let listener = Listener::builder("127.0.0.1:0".parse()?).backlog(8).open(&ns)?;
//! let _queued = listener.fill()?;
//! let before = Counters::read_in(&ns)?;
//! scenario::overflow_syns(&listener, 7)?;
//! assert_eq!(Counters::read_in(&ns)?.since(&before).get("TcpExt", "ListenDrops"), 7);
//! # Ok(())
//! # }
//! ```

pub mod dns;
pub mod feature;
pub mod link;
pub mod listener;
pub mod netns;
pub mod raw;
pub mod require;
pub mod rule;
pub mod scenario;
pub mod witness;

mod command;
mod ioctl;

pub use link::{End, Link};
pub use listener::{ListenGroup, Listener, connect_nonblocking};
pub use netns::{NetNs, Ns};
pub use raw::{Family, RawClient, RawPeer, Segment};
pub use rule::{Hook, Rule};
pub use witness::{Counters, wait_until};
