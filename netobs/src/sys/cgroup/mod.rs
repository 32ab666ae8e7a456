//! Which container and pod a process or a socket belongs to, from its cgroup.

mod legacy;
mod path;
mod workload;

pub use legacy::legacy_controller;
pub use workload::{ContainerId, PodUid, Workload};
