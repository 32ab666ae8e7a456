//! Who lives in a namespace: container id and pod uid from a process' cgroup path.

use std::path::Path;

use crate::audit::counters::read_text;
use crate::audit::snapshot::Owner;
use crate::sys::netns::{Netns, Place};
use crate::sys::owner::Comm;

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
                (owner.container_id, owner.pod_uid) = identities(&cgroup);
            }
        }
        Place::Mount(path) => {
            let path = path.to_string_lossy();
            owner.path = Some(path.chars().filter(|c| !c.is_control()).take(256).collect());
        }
    }
    owner
}

/// The container id (its first 12 digits) and the pod uid in the text of `/proc/PID/cgroup`.
///
/// Runtimes name the cgroup after the container: 64 hexadecimal digits, with their own word in
/// front (`cri-containerd-`, `docker-`, `crio-`, `libpod-`) or none. The kubelet names the one
/// above after the pod: `pod<uid>`, with `_` for `-` under systemd.
fn identities(cgroup: &str) -> (Option<String>, Option<String>) {
    let mut container = None;
    let mut pod = None;
    for part in cgroup
        .lines()
        .take(64)
        .flat_map(|line| line.split(['/', ':']))
    {
        let part = part.trim_end_matches(".scope").trim_end_matches(".slice");
        let id = part.rsplit('-').next().unwrap_or(part);
        if id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
            container = id.get(..12).map(str::to_owned);
        }
        if let Some((_, uid)) = part.rsplit_once("pod") {
            let uid = uid.replace('_', "-");
            let hex = uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
            if hex && matches!(uid.len(), 32 | 36) {
                pod = Some(uid);
            }
        }
    }
    (container, pod)
}

#[cfg(test)]
mod tests {
    use super::identities;

    #[test]
    fn ids_of_the_usual_runtimes_are_found() {
        let id = "0123456789abcdef".repeat(4);
        let uid = "3b1fd2a0-1b2c-4d5e-8f90-abcdefabcdef";
        let under = uid.replace('-', "_");
        for (text, container, pod) in [
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{id}.scope"
                ),
                true,
                true,
            ),
            (
                format!("11:memory:/kubepods/besteffort/pod{uid}/{id}\n10:cpu:/x"),
                true,
                true,
            ),
            (format!("0::/system.slice/docker-{id}.scope"), true, false),
            ("0::/user.slice/podman.slice".to_owned(), false, false),
            ("0::/".to_owned(), false, false),
            (String::new(), false, false),
        ] {
            let (found, uid_found) = identities(&text);
            assert_eq!(
                found.as_deref(),
                container.then_some("0123456789ab"),
                "{text}"
            );
            assert_eq!(uid_found.as_deref(), pod.then_some(uid), "{text}");
        }
    }
}
