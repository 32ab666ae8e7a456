//! The cgroups of a process, from `/proc`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::Workload;
use super::hierarchy::Controller;

/// Far more than a process has: a line per hierarchy, of at most twelve controllers and the named.
const FILE_LIMIT: u64 = 64 << 10;
/// The initial pid namespace (include/linux/proc_ns.h, `PROC_PID_INIT_INO`). Its numbers are those
/// that the kernel side sends.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
/// `USER_HZ`: times in `/proc` are in hundredths of a second on every architecture.
const TICK_NS: u64 = 10_000_000;
/// Where a process' start time stands in `/proc/PID/stat`, counted from after its name.
const START_TIME_FIELD: usize = 19;

/// A process, and when it began, so that another one with the same number is not taken for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Its number in the initial pid namespace; 0: none.
    pub pid: u32,
    /// When it was started, in nanoseconds since boot (`task_struct.start_boottime` of the first
    /// thread); 0: not known, so not checked.
    pub start_ns: u64,
}

impl From<u32> for Task {
    fn from(pid: u32) -> Self {
        Self { pid, start_ns: 0 }
    }
}

/// The cgroups of a process, one per hierarchy.
#[derive(Debug)]
pub(super) struct ProcessCgroups(String);

impl ProcessCgroups {
    /// Reads those of a process; nothing when it is gone, or its number is another's by now.
    pub(super) fn of(proc_root: &Path, task: Task) -> Option<Self> {
        if task.pid == 0 {
            return None;
        }
        let folder = proc_root.join(task.pid.to_string());
        let text = read(&folder.join("cgroup")).ok()?;
        // After the cgroups: a process that is the right one now was so then.
        if task.start_ns != 0 && start_ticks(&folder)? != task.start_ns / TICK_NS {
            return None;
        }
        Some(Self(text))
    }

    /// The path in one hierarchy.
    pub(super) fn path(&self, controller: Controller) -> Option<&str> {
        self.lines()
            .find_map(|(controllers, path)| match controller {
                None => controllers.is_empty().then_some(path),
                Some(name) => controllers.split(',').any(|it| it == name).then_some(path),
            })
    }

    /// What the paths tell. They can differ: a runtime need not put its containers into every
    /// hierarchy. The first counts that tells anything, in an order from the one that is kept best.
    pub(super) fn workload(&self) -> Workload {
        const PREFERRED: [&str; 4] = ["", "cpu", "memory", "name=systemd"];
        let rank = |controllers: &str| {
            let names = controllers.split(',');
            names
                .filter_map(|name| PREFERRED.iter().position(|known| *known == name))
                .min()
                .unwrap_or(PREFERRED.len())
        };
        self.lines()
            .map(|(controllers, path)| (rank(controllers), Workload::from_cgroup_path(path)))
            .filter(|(_, workload)| !workload.is_empty())
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, workload)| workload)
            .unwrap_or_default()
    }

    /// Controllers and path of each hierarchy: `4:cpu,cpuacct:/path`, `0::/path`.
    fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            // Of a cgroup that was removed while the process ended.
            Some((controllers, path.strip_suffix(" (deleted)").unwrap_or(path)))
        })
    }
}

/// Whether process numbers in `proc_root` are those that the kernel side sends.
pub(super) fn numbers_are_the_kernels(proc_root: &Path) -> bool {
    fs::read_link(proc_root.join("self/ns/pid"))
        .is_ok_and(|link| link.as_os_str() == INITIAL_PID_NAMESPACE)
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_LIMIT).read_to_end(&mut bytes)?;
    // A name can be of any bytes; those that are none of a container's need not survive.
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn start_ticks(folder: &Path) -> Option<u64> {
    let stat = read(&folder.join("stat")).ok()?;
    // The name is in parentheses and can have some of its own.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(START_TIME_FIELD)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3e4b1c0ff5a9d2778696a5b4c3d2e1f00123456789abcdef0123456789abcdef";
    const OTHER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    fn container(text: &str) -> String {
        let text = text.replace("{id}", ID).replace("{other}", OTHER);
        let id = ProcessCgroups(text).workload().container();
        id.map(|id| id.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_hierarchy_that_tells_most_is_taken() {
        let (id, other) = (&ID[..12], &OTHER[..12]);
        for (text, wanted) in [
            ("0::/docker/{id}\n", id),
            ("4:memory:/docker/{other}\n0::/docker/{id}\n", id),
            ("4:memory:/docker/{id}\n0::/\n", id),
            (
                "5:memory:/docker/{other}\n4:cpu,cpuacct:/docker/{id}\n0::/\n",
                id,
            ),
            (
                "9:name=systemd:/\n8:pids:/\n1:cpu:/\n4:memory:/docker/{id}\n",
                id,
            ),
            ("9:name=systemd:/docker/{id}\n8:pids:/docker/{other}\n", id),
            ("8:pids:/docker/{other}\n1:cpu:/\n", other),
            ("0::/system.slice/docker-{id}.scope (deleted)\n", id),
            ("0::/a:b/docker/{id}\n", id),
            ("1:cpu:/user.slice\n0::/init.scope\n", ""),
            ("", ""),
            ("0\n::\n0:\n:\u{fffd}", ""),
        ] {
            assert_eq!(container(text), wanted, "{text}");
        }
    }

    #[test]
    fn each_hierarchy_has_its_path() {
        let hybrid = ProcessCgroups("5:cpu,cpuacct:/c\n4:memory:/a\n0::/b\n".to_owned());
        assert_eq!(hybrid.path(None), Some("/b"));
        assert_eq!(hybrid.path(Some("memory")), Some("/a"));
        assert_eq!(hybrid.path(Some("cpuacct")), Some("/c"));
        assert_eq!(hybrid.path(Some("pids")), None);
        let legacy = ProcessCgroups("4:memory:/a\n".to_owned());
        assert_eq!(legacy.path(None), None);
    }

    fn fixture(root: &Path, pid: u32, comm: &str, start: u64) {
        let folder = root.join(pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cgroup"), format!("0::/docker/{ID}\n")).unwrap();
        let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0\n");
        fs::write(folder.join("stat"), stat).unwrap();
    }

    #[test]
    fn a_number_given_to_another_process_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        fixture(dir.path(), 7, "a) S (b", 12_345);
        let of = |pid, start_ns| {
            ProcessCgroups::of(dir.path(), Task { pid, start_ns }).map(|it| it.workload())
        };
        let wanted = Workload::from_cgroup_path(&format!("/docker/{ID}"));
        assert_eq!(of(7, 0), Some(wanted));
        assert_eq!(of(7, 123_456_789_012), Some(wanted));
        assert_eq!(of(7, 123_469_999_999), None);
        assert_eq!(of(8, 0), None);
        assert_eq!(of(0, 0), None);
        fs::remove_file(dir.path().join("7/stat")).unwrap();
        assert_eq!(of(7, 123_456_789_012), None);
    }

    /// A process that has ended, and was renamed before.
    #[test]
    fn a_live_process_is_read_and_a_dead_one_is_not() {
        let proc_root = Path::new("/proc");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let folder = proc_root.join(child.id().to_string());
        let start_ns = start_ticks(&folder).unwrap() * TICK_NS;
        let pid = child.id();
        assert!(ProcessCgroups::of(proc_root, Task { pid, start_ns }).is_some());
        let earlier = start_ns - TICK_NS;
        assert!(
            ProcessCgroups::of(
                proc_root,
                Task {
                    pid,
                    start_ns: earlier
                }
            )
            .is_none()
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ProcessCgroups::of(proc_root, Task { pid, start_ns }).is_none());
    }
}
