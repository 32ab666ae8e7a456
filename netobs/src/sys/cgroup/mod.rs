//! Which container and pod a process or a socket belongs to, from its cgroup.

mod path;
mod workload;

pub use workload::{ContainerId, PodUid, Workload};
