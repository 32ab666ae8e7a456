//! This machine and this process: BTF, cgroups, kallsyms, mounts, /proc, network namespaces,
//! privileges, supervision.
//!
//! Every reader takes its root path or its bytes from the caller, so that tests run on fixtures.
//! What is read is treated as hostile: lengths are bounded, and nothing here panics on bad input.

pub mod arrivals;
pub mod btf;
pub mod cgroup;
pub mod cgroup_root;
pub mod clock;
pub mod hardening;
pub mod kallsyms;
pub mod memory;
pub mod mountinfo;
pub mod netns;
pub mod netstat;
pub mod owner;
pub mod privilege;
pub mod signals;
pub mod sock_diag;
pub mod supervisor;
pub mod tcp_info;
pub mod ticker;
pub mod tracefs;
