//! From the path of a cgroup to container and pod: a pure function over the shapes that container
//! runtimes and the kubelet are known to make.
//!
//! Two rules where a path has several candidates:
//! - the outermost pod counts, and of its containers the one directly below it. What is nested
//!   deeper was made inside the container and can have any name; this machine's kubelet and
//!   runtime do not know it. (A cluster whose nodes are containers, as kind's are, has its pods
//!   below a container: the pod goes first.)
//! - without a pod, the outermost container counts.
//!
//! A directory named by 64 digits is a container only where a runtime is known to put such. What
//! fits no shape is nobody's: no digits are picked out of unknown names.
//!
//! Who may make cgroups (root, a user in the delegated part below `user@.service`) can name them
//! like those of a container. This is attribution, not authentication.

use std::borrow::Cow;

use super::workload::{ContainerId, PodUid, Workload};

/// Longest path looked at; `PATH_MAX`.
const PATH_BYTES: usize = 4096;

/// Before the id in a name like `cri-containerd-ID.scope` or `slice:cri-containerd:ID`. Monitors
/// of containers (`crio-conmon-ID`, `libpod-conmon-ID`) are not in them.
const RUNTIMES: [&str; 6] = [
    "cri-containerd",
    "crio",
    "docker",
    "libpod",
    // Podman below a unit of systemd (`--cgroups=split`, Quadlet).
    "libpod-payload",
    "nerdctl",
];

/// Parents of directories that are named by the id alone: Docker, GitHub's runner, and the
/// namespaces of containerd that nerdctl and bare CRI calls use.
const PARENTS: [&str; 4] = ["docker", "actions_job", "default", "k8s.io"];

impl Workload {
    /// Reads container and pod out of a cgroup's path, of version 1 or 2, from the root of its
    /// hierarchy or as a cgroup namespace shows it (`/../..` in front). Takes time linear in the
    /// path, and allocates only for names that systemd escaped.
    #[must_use]
    pub fn from_cgroup_path(path: &str) -> Self {
        if path.len() > PATH_BYTES {
            return Self::default();
        }
        let mut outermost = None;
        let mut parents = Parents::default();
        let mut names = path
            .split('/')
            .filter(|name| !name.is_empty())
            .map(unescaped);
        while let Some(name) = names.next() {
            let (slice, attached) = match split_colons(&name) {
                Some((slice, id)) => (slice, Some(id)),
                None => (&*name, None),
            };
            if let Some(pod) = parents.pod(slice) {
                let container = attached.or_else(|| in_pod(&names.next()?));
                return Self::new(container, Some(pod));
            }
            if outermost.is_none() {
                outermost = attached
                    .or_else(|| scope(&name))
                    .or_else(|| parents.bare(&name));
            }
            parents.enter(&name);
        }
        Self::new(outermost, None)
    }
}

/// What matters about the names passed so far.
#[derive(Default)]
struct Parents {
    /// The last was the kubelet's root for pods, one of its two classes below it, or hidden.
    kubepods: bool,
    /// The last was the root for pods itself, or hidden.
    kubepods_root: bool,
    /// The last was one below which a container is named by its id alone.
    runtime: bool,
    /// One of them was that of Amazon's ECS, which puts clusters and tasks between.
    ecs: bool,
}

impl Parents {
    fn enter(&mut self, name: &str) {
        self.kubepods = self.kubepods_root && matches!(name, "burstable" | "besteffort");
        // Above a cgroup namespace the names are hidden; a container's has the kubelet's there.
        self.kubepods_root = matches!(name, "kubepods" | "..");
        self.kubepods |= self.kubepods_root;
        self.runtime = PARENTS.contains(&name);
        self.ecs |= name == "ecs";
    }

    /// A pod's own cgroup: `podUID` below `kubepods`, or systemd's slice, whose name has its
    /// parents' in it: `kubepods-burstable-podUID.slice`, before that the kubelet's own root.
    fn pod(&self, name: &str) -> Option<PodUid> {
        if self.kubepods
            && let Some(uid) = name.strip_prefix("pod")
        {
            return PodUid::parse(uid);
        }
        let (parents, pod) = name.strip_suffix(".slice")?.rsplit_once("-pod")?;
        let parents = ["-burstable", "-besteffort"]
            .iter()
            .find_map(|class| parents.strip_suffix(class))
            .unwrap_or(parents);
        if parents != "kubepods" && !parents.ends_with("-kubepods") {
            return None;
        }
        // The kubelet writes the dashes as underscores, since a dash is systemd's separator.
        PodUid::parted_by(pod, |byte| matches!(byte, b'_' | b'-'))
    }

    fn bare(&self, name: &str) -> Option<ContainerId> {
        (self.runtime || self.ecs)
            .then(|| ContainerId::from_hex(name))
            .flatten()
    }
}

/// A container directly below its pod.
fn in_pod(name: &str) -> Option<ContainerId> {
    ContainerId::from_hex(name).or_else(|| scope(name))
}

/// `RUNTIME-ID.scope`, or without the ending where systemd does not manage it.
fn scope(name: &str) -> Option<ContainerId> {
    let (runtime, id) = name
        .strip_suffix(".scope")
        .unwrap_or(name)
        .rsplit_once('-')?;
    RUNTIMES
        .contains(&runtime)
        .then(|| ContainerId::from_hex(id))
        .flatten()
}

/// `SLICE:RUNTIME:ID`: what was meant for systemd, made by a runtime that does not use it.
fn split_colons(name: &str) -> Option<(&str, ContainerId)> {
    let (rest, id) = name.rsplit_once(':')?;
    let (slice, runtime) = rest.rsplit_once(':')?;
    let id = RUNTIMES
        .contains(&runtime)
        .then(|| ContainerId::from_hex(id))??;
    Some((slice, id))
}

/// Undoes systemd's `\xNN`, of which the dash is the one met.
fn unescaped(name: &str) -> Cow<'_, str> {
    if name.contains("\\x2d") {
        Cow::Owned(name.replace("\\x2d", "-"))
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "3e4b1c0ff5a9d2778696a5b4c3d2e1f00123456789abcdef0123456789abcdef";
    const OTHER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
    const UID: &str = "6af3c1f0-35d9-4e0d-92c5-8d5fb5e2e7aa";
    const SYSTEMD_UID: &str = "6af3c1f0_35d9_4e0d_92c5_8d5fb5e2e7aa";
    const STATIC_UID: &str = "5f9d9b7a1c3e4d2b8a6f0e1d2c3b4a59";

    /// Puts ids where the table has `{id}`, `{other}`, `{uid}`, `{uid_}` and `{static}`.
    fn read(shape: &str) -> (Option<String>, Option<String>) {
        let path = shape
            .replace("{id}", ID)
            .replace("{other}", OTHER)
            .replace("{uid}", UID)
            .replace("{uid_}", SYSTEMD_UID)
            .replace("{static}", STATIC_UID);
        let workload = Workload::from_cgroup_path(&path);
        (
            workload.container().map(|id| id.to_string()),
            workload.pod().map(|pod| pod.to_string()),
        )
    }

    #[test]
    fn containers_of_pods() {
        for shape in [
            // The kubelet's cgroupfs driver.
            "/kubepods/pod{uid}/{id}",
            "/kubepods/burstable/pod{uid}/{id}",
            "/kubepods/besteffort/pod{uid}/{id}",
            "/kubepods/besteffort/pod{uid}/{id}/init.scope",
            "/kubepods/burstable/pod{uid}/crio-{id}",
            "/kubepods/burstable/pod{uid}/cri-containerd-{id}",
            // The kubelet's systemd driver.
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/cri-containerd-{id}.scope",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid_}.slice/crio-{id}.scope",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid_}.slice/crio-{id}.scope/container",
            "/kubepods.slice/kubepods-pod{uid_}.slice/docker-{id}.scope",
            "/kubepods.slice/kubepods-pod{uid_}.slice/docker-{id}",
            "/kubepods.slice/kubepods-pod{uid_}.slice/{id}",
            "/kubepods.slice/kubepods\\x2dpod{uid_}.slice/cri\\x2dcontainerd\\x2d{id}.scope",
            // containerd with another driver than the kubelet.
            "/system.slice/containerd.service/kubepods-burstable-pod{uid_}.slice:cri-containerd:{id}",
            "/kubepods-burstable-pod{uid_}.slice:cri-containerd:{id}",
            "/kubepods-pod{uid_}.slice:cri-containerd:{id}/nested",
            // A kubelet with a root of its own, and clusters in containers.
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{uid_}.slice/cri-containerd-{id}.scope",
            "/docker/{other}/kubelet/kubepods/besteffort/pod{uid}/{id}",
            "/docker/{other}/kubepods/besteffort/pod{uid}/{id}",
            "/system.slice/docker-{other}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{uid_}.slice/cri-containerd-{id}.scope",
            "/system.slice/k3s.service/kubepods/burstable/pod{uid}/{id}",
            "/k8s/kubepods/pod{uid}/{id}",
            // As a cgroup namespace shows it.
            "/../../kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/cri-containerd-{id}.scope",
            "/../../../kubepods/besteffort/pod{uid}/{id}",
            "/../../pod{uid}/{id}",
            "/../../../besteffort/pod{uid}/{id}",
            // Containers that the container made.
            "/kubepods/burstable/pod{uid}/{id}/docker/{other}",
            "/kubepods/burstable/pod{uid}/{id}/kubepods/pod00000000-0000-0000-0000-000000000000/{other}",
        ] {
            let wanted = (Some(ID[..12].to_owned()), Some(UID.to_owned()));
            assert_eq!(read(shape), wanted, "{shape}");
        }
        for shape in [
            "/kubepods/burstable/pod{static}/{id}",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{static}.slice/crio-{id}.scope",
        ] {
            let wanted = (Some(ID[..12].to_owned()), Some(STATIC_UID.to_owned()));
            assert_eq!(read(shape), wanted, "{shape}");
        }
    }

    #[test]
    fn pods_without_a_container() {
        for shape in [
            "/kubepods/burstable/pod{uid}",
            "/kubepods.slice/kubepods-pod{uid_}.slice",
            "/kubepods/besteffort/pod{uid}/crio-conmon-{id}",
            "/kubepods.slice/kubepods-pod{uid_}.slice/crio-conmon-{id}.scope",
            "/kubepods/pod{uid}/kata_{id}",
            "/kubepods/pod{uid}/runtime-helper/{id}",
        ] {
            let wanted = (None, Some(UID.to_owned()));
            assert_eq!(read(shape), wanted, "{shape}");
        }
    }

    #[test]
    fn containers_without_a_pod() {
        for shape in [
            "/docker/{id}",
            "/docker/{id}/docker/{other}",
            "/docker/{id}/system.slice/nginx.service",
            "/docker-ce/docker/{id}",
            "/system.slice/docker-{id}.scope",
            "/system.slice/docker-{id}.scope/init.scope",
            "/../../../../system.slice/docker-{id}.scope",
            "/../docker-{id}.scope",
            "/system.slice:docker:{id}",
            "/user.slice:nerdctl:{id}",
            "/machine.slice/libpod-{id}.scope",
            "/machine.slice/libpod-{id}.scope/container",
            "/machine.slice/machine-libpod_pod_{other}.slice/libpod-{id}.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{other}.slice/libpod-{id}.scope",
            "/libpod_parent/libpod-{id}",
            "/system.slice/web.service/libpod-payload-{id}",
            "/system.slice/nerdctl-{id}.scope",
            "/system.slice/crio-{id}.scope",
            "/system.slice/cri-containerd-{id}.scope",
            "/default/{id}",
            "/k8s.io/{id}",
            "/actions_job/{id}",
            "/ecs/9781c248-0edd-4cdb-9a93-f63cb662a5d3/{id}",
            "/ecs/cluster/9781c2480edd4cdb9a93f63cb662a5d3/{id}",
            "/ecstasks.slice/ecstasks-9781c2480edd4cdb9a93f63cb662a5d3.slice/docker-{id}.scope",
            "/lxc.payload.build/docker/{id}",
        ] {
            let wanted = (Some(ID[..12].to_owned()), None);
            assert_eq!(read(shape), wanted, "{shape}");
        }
    }

    #[test]
    fn what_nobody_knows_is_nobodys() {
        for shape in [
            "",
            "/",
            "/../..",
            "/init.scope",
            "/system.slice/nginx.service",
            "/user.slice/user-1000.slice/session-2.scope",
            "/kubepods",
            "/kubepods.slice/kubepods-burstable.slice",
            "/{id}",
            "/builds/{id}",
            "/system.slice/{id}",
            "/system.slice/build-{id}.scope",
            "/system.slice/docker-{id}0.scope",
            "/system.slice/docker-0123456789ab.scope",
            "/system.slice/docker-{id}.mount",
            "/system.slice/var-lib-docker-containers-{id}-mounts-shm.mount",
            "/machine.slice/libpod-conmon-{id}.scope",
            "/system.slice/crio-conmon-{id}.scope",
            "/machine.slice/machine-libpod_pod_{id}.slice",
            "/machine.slice/systemd-nspawn@build.service/payload",
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
            "/lxc.payload.build/system.slice/cron.service",
            "/lxc/build",
            "/podruntime/kubelet",
            "/podruntime/runtime",
            "/pod{uid}/{id}",
            "/../{id}",
            "/../build/pod{uid}/{id}",
            "/kubepods.slice/kubepods-pod{uid_}.slice:something",
            "/kubepods/guaranteed/pod{uid}/{id}",
            "/burstable/pod{uid}/{id}",
            "/my-pod{uid_}.slice/x",
            "/notkubepods-pod{uid_}.slice/x",
            "/kubepods/podnot-a-uid/{id}",
            "/kubepods/pod{uid}0/x",
            // Fargate names its containers by the task and a number: no container's id.
            "/ecs/9781c2480edd4cdb9a93f63cb662a5d3/9781c2480edd4cdb9a93f63cb662a5d3-2531612879",
            "/docker/buildkit/yr4gzzz8wm0m4zhhs2ecrzolk",
            "/:docker:",
            "/::{id}",
        ] {
            assert_eq!(read(shape), (None, None), "{shape}");
        }
    }

    #[test]
    fn a_path_longer_than_paths_are_is_not_read() {
        let path = format!("{}/docker/{ID}", "/a".repeat(2048));
        assert!(Workload::from_cgroup_path(&path).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read(path in "\\PC{0,200}") {
            let _ = Workload::from_cgroup_path(&path);
        }

        /// Pieces of known shapes in any order: what comes out was in the path as a whole name.
        #[test]
        fn nothing_is_made_up(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "/", "kubepods", "kubepods-", "burstable", "-burstable", "pod", "-pod", UID,
                SYSTEMD_UID, STATIC_UID, ID, OTHER, "docker", "docker-", "cri-containerd-",
                "cri-containerd:", ":", ".slice", ".scope", "..", "ecs", "\\x2d", "crio-conmon-",
                "libpod-", "é", " ",
            ]), 0..24)
        ) {
            let path = pieces.concat();
            let workload = Workload::from_cgroup_path(&path);
            if let Some(id) = workload.container() {
                prop_assert!(path.contains(&id.to_string()));
            }
            if let Some(pod) = workload.pod() {
                prop_assert!(path.replace(['_', '-'], "").replace("\\x2d", "")
                    .contains(&pod.to_string().replace('-', "")));
            }
        }
    }
}
