//! Whose numbers are: the labels that every family with an owner begins with.

use std::sync::Arc;

use netobs_common::owner::OwnerKey;

use crate::sys::{cgroup::Workload, owner::Comm};

/// An owner as labels show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Inode number of the network namespace; 0 when the method cannot tell.
    pub netns: u32,
    /// Its identity, which is not shown: the numbers of a namespace that has taken the number of
    /// another are its own.
    pub identity: u64,
    /// Name of the process; empty when not known.
    pub process: Comm,
    /// Container and pod, as far as known.
    pub workload: Workload,
}

/// Tells containers and pods by cgroup.
pub trait Workloads {
    /// What runs in the cgroup with this id; nothing for one that is not known.
    fn of(&mut self, cgroup: u64) -> Workload;
}

/// What Kubernetes calls a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodName {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container in it; empty when only the pod is known.
    pub container: String,
}

/// Finds what Kubernetes calls a workload, without waiting for it.
pub trait Names {
    /// The name; `None` when it is not known (yet).
    fn of(&self, workload: Workload) -> Option<Arc<PodName>>;
}

/// Nobody is known by name.
impl Names for () {
    fn of(&self, _workload: Workload) -> Option<Arc<PodName>> {
        None
    }
}

impl Owner {
    /// The labels of what the kernel side counts by `key`.
    pub fn of(key: &OwnerKey, workloads: &mut dyn Workloads) -> Self {
        Self {
            netns: key.netns,
            identity: key.net,
            process: Comm::from_bytes(&key.comm),
            workload: workloads.of(key.cgroup),
        }
    }
}

/// For tests: nothing is known of any cgroup.
#[cfg(test)]
impl Workloads for () {
    fn of(&mut self, _cgroup: u64) -> Workload {
        Workload::default()
    }
}
