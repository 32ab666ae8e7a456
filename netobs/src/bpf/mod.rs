//! The only room that talks to the `bpf()` system call: the object, its programs, typed maps,
//! iterators and the ring.
//!
//! Nothing is pinned: every program, link and map goes with the process, however it ends.

mod dns;
mod filling;
mod iter;
mod load;
mod maps;
mod object;
mod raw;
mod run_stats;

pub use dns::DnsMaps;
pub use filling::Filling;
pub use iter::{GoneSockets, IterError, ListenerReadings, SocketIter};
pub use maps::{MapError, Maps, Ring};
#[cfg(feature = "ebpf-log")]
pub use object::KernelLog;
pub use object::{AttachError, Attachment, Direction, KernelTypes, Loader, Object, ObjectError};
pub use run_stats::RunStats;
