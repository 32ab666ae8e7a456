//! Hosts whose containers are in a hierarchy of cgroup v1.

use std::{fs, path::Path};

/// Controllers that container runtimes make a cgroup in for every container, by preference.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// The cgroup v1 controller by whose hierarchy containers are told apart; `None` where cgroup v2
/// does it.
///
/// A hybrid host mounts both, and its containers are in the hierarchies of v1.
#[must_use]
pub fn legacy_controller(proc_root: &Path) -> Option<&'static str> {
    from_groups(&fs::read_to_string(proc_root.join("self/cgroup")).ok()?)
}

/// By a process' `/proc/PID/cgroup`: lines of `number:controllers:path`.
fn from_groups(groups: &str) -> Option<&'static str> {
    let mounted = |controller: &&'static str| {
        groups
            .lines()
            .filter_map(|line| line.split(':').nth(1))
            .any(|controllers| controllers.split(',').any(|name| name == *controller))
    };
    CONTROLLERS.iter().find(|name| mounted(name)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_is_told_from_a_unified_one() {
        let hybrid = "9:memory:/a\n8:cpu,cpuacct:/\n1:name=systemd:/init.scope\n0::/init.scope\n";
        assert_eq!(from_groups(hybrid), Some("memory"));
        assert_eq!(from_groups("4:cpu,pids:/\n0::/\n"), Some("pids"));
        assert_eq!(from_groups("0::/user.slice/memory\n"), None);
        assert_eq!(from_groups(""), None);
    }
}
