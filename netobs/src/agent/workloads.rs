//! Containers and pods by cgroup, as the books and the kernel side ask for them.

use crate::{
    ledger::owner,
    sys::cgroup::{Workload, Workloads},
};

impl owner::Workloads for Workloads {
    fn of(&mut self, cgroup: u64) -> Workload {
        // What is counted by cgroup comes with no process.
        Self::of(self, cgroup, 0)
    }
}
