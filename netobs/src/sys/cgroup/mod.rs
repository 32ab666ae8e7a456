//! Which container and pod a process or a socket belongs to, from its cgroup.

mod hierarchy;
mod index;
mod legacy;
mod path;
mod process;
mod workload;
mod workloads;

pub use legacy::legacy_controller;
pub use process::Task;
pub use workload::{ContainerId, PodUid, Workload};
pub use workloads::Workloads;
