//! Who lives in a namespace: container id and pod uid from a process' cgroup path.

use std::path::Path;

use crate::audit::counters::read_text;
use crate::audit::snapshot::Owner;
use crate::sys::cgroup::Workload;
use crate::sys::netns::{Netns, Place};
use crate::sys::owner::Comm;

/// Hierarchies of cgroup v1; kernels have about a dozen.
const MAX_HIERARCHIES: usize = 64;

/// Fills in what is known of `netns`.
pub(super) fn owner(proc: &Path, netns: &Netns) -> Owner {
    let mut owner = Owner::default();
    match &netns.place {
        Place::Process(pid) => {
            owner.pid = Some(*pid);
            owner.process = Comm::of_pid(proc, *pid)
                .ok()
                .filter(|c| !c.is_empty())
                .map(|c| c.to_string());
            if let Ok(cgroup) = read_text(&proc.join(pid.to_string()).join("cgroup")) {
                let found = workload(&cgroup);
                owner.container_id = found.container().map(|id| id.to_string());
                owner.pod_uid = found.pod().map(|uid| uid.to_string());
            }
        }
        Place::Mount(path) => {
            let path = path.to_string_lossy();
            owner.path = Some(path.chars().filter(|c| !c.is_control()).take(256).collect());
        }
    }
    owner
}

/// What the text of `/proc/PID/cgroup` tells: a line `number:controllers:path` for each hierarchy, of
/// which some may be shared by all processes. The one that tells most counts.
fn workload(cgroup: &str) -> Workload {
    cgroup
        .lines()
        .take(MAX_HIERARCHIES)
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .map(Workload::from_cgroup_path)
        .max_by_key(|found| (found.pod().is_some(), found.container().is_some()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::workload;

    #[test]
    fn the_line_that_tells_most_counts() {
        let id = "0123456789abcdef".repeat(4);
        let uid = "3b1fd2a0-1b2c-4d5e-8f90-abcdefabcdef";
        let text = format!("11:memory:/kubepods/besteffort/pod{uid}/{id}\n10:cpu:/x\n0::/\n");
        let found = workload(&text);
        assert_eq!(
            found.container().map(|id| id.to_string()).as_deref(),
            Some("0123456789ab")
        );
        assert_eq!(found.pod().map(|uid| uid.to_string()).as_deref(), Some(uid));
        for nobody in ["", "0::/\n", "junk", "0::/user.slice/podman.slice\n"] {
            assert!(workload(nobody).is_empty(), "{nobody:?}");
        }
    }
}
