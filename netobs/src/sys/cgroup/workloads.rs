//! From what the kernel knows of a socket's owner, numbers, to container and pod.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::Workload;
use super::hierarchy::{CGROUP_LIMIT, Hierarchy, Walk};
use super::index::{Answer, Index};
use super::process::{ProcessCgroups, Task, numbers_are_the_kernels};

/// The least time from one walk to the next.
const WALK_INTERVAL: Duration = Duration::from_secs(1);
/// Walks take at most one part in so many of a CPU's time.
const WALK_SHARE: u32 = 50;

/// Finds the workload of a socket or a process.
///
/// The cgroup of the *socket* decides (`sk->sk_cgrp_data`, which is set when it is made and does not
/// follow the process), by its number: cached, since a number is never used for another cgroup. A
/// number not seen before is looked up through the process that came with it, and if its cgroup is
/// another one (a socket handed over, a process that moved or ended), by walking the hierarchy on a
/// thread of its own.
///
/// On machines with cgroup version 1, containers can be missing from version 2, which is all that a
/// socket knows of: there the process decides when the socket's cgroup tells nothing. **Nothing is
/// cached by process**, since their numbers are used again: each such call reads a file in `/proc`.
#[derive(Debug)]
pub struct Workloads {
    proc_root: PathBuf,
    hierarchies: Vec<Hierarchy>,
    index: Index,
    /// Whether the numbers of processes mean the same in the kernel and in `/proc`.
    processes: bool,
    legacy: bool,
    walk: Option<JoinHandle<Walked>>,
    next_walk: Instant,
}

/// What came of a walk, and how long it took.
type Walked = (Walk, Duration);

impl Workloads {
    /// Finds the hierarchy and walks it once.
    ///
    /// Process numbers are of use only in the initial pid namespace: in any other they would name
    /// other processes, so there sockets are told by their cgroup alone.
    #[must_use]
    pub fn new(proc_root: &Path) -> Self {
        let hierarchies = Hierarchy::find(proc_root);
        let own = ProcessCgroups::of(proc_root, std::process::id().into());
        let mut workloads = Self {
            proc_root: proc_root.to_owned(),
            index: Index::default(),
            processes: numbers_are_the_kernels(proc_root),
            // A hierarchy that is not seen tells nothing about containers.
            legacy: hierarchies.is_empty() || own.is_some_and(|own| own.has_legacy()),
            hierarchies,
            walk: None,
            next_walk: Instant::now(),
        };
        let (walk, took) = walk(&workloads.hierarchies);
        debug!(cgroups = walk.found.len(), ?took, "walked over the cgroups");
        if !workloads.hierarchies.iter().any(Hierarchy::is_whole) {
            warn!(
                processes = workloads.processes,
                "cgroups outside this container cannot be seen; containers and pods are told by \
                 processes, where those can"
            );
        }
        workloads.take(walk, took);
        workloads
    }

    /// The workload of a socket: `cgroup` as `sk_cgrp_data` or `bpf_get_current_cgroup_id()` give
    /// it (0: not known), `task` a process known to have it (0: none). Nobody's when it is not
    /// known, or not yet: see [`Workloads::find`].
    pub fn of(&mut self, cgroup: u64, task: impl Into<Task>) -> Workload {
        self.find(cgroup, task).unwrap_or_default()
    }

    /// Like [`Workloads::of`], and nothing while the cgroup is being looked for: ask again at the
    /// next look. It takes a second at most, as far as it is found at all.
    pub fn find(&mut self, cgroup: u64, task: impl Into<Task>) -> Option<Workload> {
        self.find_at(cgroup, task.into(), Instant::now())
    }

    /// The workload of a process, by its cgroups alone.
    #[must_use]
    pub fn of_process(&self, task: impl Into<Task>) -> Workload {
        self.cgroups(task.into())
            .map(|cgroups| cgroups.workload())
            .unwrap_or_default()
    }

    /// Waits for a walk that is under way. To be called before rights are given up: a thread keeps
    /// those that it was started with.
    pub fn rest(&mut self) {
        if let Some(thread) = self.walk.take() {
            self.join(thread);
        }
    }

    /// Cgroups that are known at the moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no cgroup is known: none could be seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    fn find_at(&mut self, cgroup: u64, task: Task, now: Instant) -> Option<Workload> {
        if let Some(thread) = self.walk.take_if(|thread| thread.is_finished()) {
            self.join(thread);
        }
        match self.index.get(cgroup, now) {
            Answer::Known(known) if !known.is_empty() || !self.legacy => return Some(known),
            Answer::Known(_) => return Some(self.of_process(task)),
            Answer::Unknown if cgroup == 0 => return Some(self.of_process(task)),
            Answer::Unknown => {}
        }
        let cgroups = self.cgroups(task);
        if let Some(cgroups) = &cgroups
            && let Some(path) = cgroups.unified()
            && self.number(path) == Some(cgroup)
        {
            let workload = Workload::from_cgroup_path(path);
            self.index.learn(cgroup, workload);
            if !workload.is_empty() || !self.legacy {
                return Some(workload);
            }
        }
        let by_process = || {
            let cgroups = cgroups.as_ref();
            cgroups.map(ProcessCgroups::workload).unwrap_or_default()
        };
        // Version 1 knows the process, and its word is as good as it gets.
        if self.legacy && !by_process().is_empty() {
            return Some(by_process());
        }
        // A walk may not find it; a process that has the socket is the best there is.
        if !self.hierarchies.iter().any(Hierarchy::is_whole) {
            return Some(by_process());
        }
        let wanted = self.index.want(cgroup);
        self.begin_walk(now);
        (!wanted).then(Workload::default)
    }

    fn cgroups(&self, task: Task) -> Option<ProcessCgroups> {
        self.processes
            .then(|| ProcessCgroups::of(&self.proc_root, task))?
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.hierarchies.iter().find_map(|part| part.number(path))
    }

    fn begin_walk(&mut self, now: Instant) {
        if self.walk.is_some() || now < self.next_walk {
            return;
        }
        let hierarchies = self.hierarchies.clone();
        let thread = std::thread::Builder::new()
            .name("cgroups".to_owned())
            .spawn(move || walk(&hierarchies));
        match thread {
            Ok(thread) => {
                self.walk = Some(thread);
                self.index.walk_begins();
            }
            Err(error) => {
                debug!(%error, "no thread to walk over the cgroups");
                self.next_walk = now + WALK_INTERVAL;
            }
        }
    }

    fn join(&mut self, thread: JoinHandle<Walked>) {
        // A walk that panicked has found nothing.
        let (walk, took) = thread.join().unwrap_or_default();
        self.take(walk, took);
    }

    fn take(&mut self, walk: Walk, took: Duration) {
        let now = Instant::now();
        self.next_walk = now + WALK_INTERVAL.max(took.saturating_mul(WALK_SHARE));
        self.index.take(walk, now);
    }
}

fn walk(hierarchies: &[Hierarchy]) -> Walked {
    let begun = Instant::now();
    let mut all = Walk {
        complete: true,
        ..Walk::default()
    };
    for part in hierarchies {
        let complete = all.complete;
        part.walk(&mut all, CGROUP_LIMIT);
        all.complete &= complete;
    }
    (all, begun.elapsed())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    const ID: &str = "3e4b1c0ff5a9d2778696a5b4c3d2e1f00123456789abcdef0123456789abcdef";
    const OTHER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    /// A machine whose `/proc` is `proc`, with the hierarchy in `cgroup`.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(own: &str) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            let proc_root = machine.proc_root();
            fs::create_dir_all(proc_root.join("self/ns")).unwrap();
            fs::create_dir_all(machine.cgroup("")).unwrap();
            symlink("pid:[4026531836]", proc_root.join("self/ns/pid")).unwrap();
            let line = format!(
                "4 3 0:38 / {} rw - cgroup2 cgroup2 rw\n",
                machine.cgroup("").display()
            );
            fs::write(proc_root.join("self/mountinfo"), line).unwrap();
            machine.process(std::process::id(), own);
            machine
        }

        fn proc_root(&self) -> PathBuf {
            self.0.path().join("proc")
        }

        fn cgroup(&self, path: &str) -> PathBuf {
            self.0
                .path()
                .join("cgroup")
                .join(path.trim_start_matches('/'))
        }

        /// Makes a cgroup; returns its number.
        fn make(&self, path: &str) -> u64 {
            fs::create_dir_all(self.cgroup(path)).unwrap();
            fs::metadata(self.cgroup(path)).unwrap().ino()
        }

        fn process(&self, pid: u32, cgroups: &str) {
            let folder = self.proc_root().join(pid.to_string());
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("cgroup"), cgroups).unwrap();
        }

        /// As if the directory were the root of the hierarchy, which has the number 1.
        fn workloads(&self) -> Workloads {
            let mut workloads = Workloads::new(&self.proc_root());
            for part in &mut workloads.hierarchies {
                part.pretend_whole();
            }
            workloads
        }
    }

    fn docker(id: &str) -> (String, Workload) {
        let path = format!("/docker/{id}");
        let workload = Workload::from_cgroup_path(&path);
        (path, workload)
    }

    /// Asks until it is known, as looks do.
    fn settled(workloads: &mut Workloads, cgroup: u64, pid: u32) -> Workload {
        workloads.next_walk = Instant::now();
        assert_eq!(workloads.find(cgroup, pid), None);
        workloads.rest();
        workloads.find(cgroup, pid).unwrap()
    }

    #[test]
    fn a_cgroup_that_is_there_at_start_is_known() {
        let machine = Machine::new("0::/\n");
        let (path, workload) = docker(ID);
        let number = machine.make(&path);
        let mut workloads = machine.workloads();
        assert_eq!(workloads.len(), 3);
        assert_eq!(workloads.find(number, 0), Some(workload));
    }

    #[test]
    fn a_new_cgroup_is_found_through_the_process_at_once() {
        let machine = Machine::new("0::/\n");
        let mut workloads = machine.workloads();
        let (path, workload) = docker(ID);
        let number = machine.make(&path);
        machine.process(7, &format!("0::{path}\n"));
        assert_eq!(workloads.find(number, 7), Some(workload));
        // From then on without it.
        assert_eq!(workloads.find(number, 0), Some(workload));
        assert!(workloads.walk.is_none());
    }

    /// A process that was gone before its event was read.
    #[test]
    fn a_new_cgroup_without_its_process_is_found_by_a_walk() {
        let machine = Machine::new("0::/\n");
        let mut workloads = machine.workloads();
        let (path, workload) = docker(ID);
        let number = machine.make(&path);
        assert_eq!(settled(&mut workloads, number, 7), workload);
    }

    /// A number given to another process, a socket handed over, a process that was moved.
    #[test]
    fn the_sockets_cgroup_has_the_word_before_the_process() {
        let machine = Machine::new("0::/\n");
        let mut workloads = machine.workloads();
        let ((path, workload), (other_path, other)) = (docker(ID), docker(OTHER));
        let (number, other_number) = (machine.make(&path), machine.make(&other_path));
        machine.process(7, &format!("0::{other_path}\n"));
        assert_eq!(settled(&mut workloads, number, 7), workload);
        assert_eq!(workloads.find(other_number, 7), Some(other));
        assert_eq!(workloads.of_process(7), other);
    }

    #[test]
    fn a_number_that_is_nowhere_is_walked_for_once() {
        let machine = Machine::new("0::/\n");
        let mut workloads = machine.workloads();
        assert_eq!(settled(&mut workloads, 424_242, 0), Workload::default());
        workloads.next_walk = Instant::now();
        assert_eq!(workloads.of(424_242, 0), Workload::default());
        assert!(workloads.walk.is_none());
    }

    #[test]
    fn walks_keep_a_distance() {
        let machine = Machine::new("0::/\n");
        let mut workloads = machine.workloads();
        workloads.next_walk = Instant::now() + Duration::from_secs(1);
        assert_eq!(workloads.find(424_242, 0), None);
        assert!(workloads.walk.is_none());
        let (walk, _) = walk(&workloads.hierarchies);
        let before = Instant::now();
        workloads.take(walk, Duration::from_secs(1));
        assert!(workloads.next_walk >= before + Duration::from_secs(50));
    }

    #[test]
    fn with_version_1_the_process_tells_what_version_2_does_not() {
        let machine = Machine::new("4:memory:/\n0::/\n");
        let mut workloads = machine.workloads();
        let root = fs::metadata(machine.cgroup("")).unwrap().ino();
        let (path, workload) = docker(ID);
        machine.process(7, &format!("4:memory:{path}\n0::/\n"));
        assert_eq!(workloads.of(root, 7), workload);
        assert_eq!(workloads.of(root, 8), Workload::default());
        // Nothing is kept by process: its number is another's now.
        let (path, other) = docker(OTHER);
        machine.process(7, &format!("4:memory:{path}\n0::/\n"));
        assert_eq!(workloads.of(root, 7), other);
        machine.process(7, "4:memory:/\n0::/\n");
        assert_eq!(workloads.of(root, 7), Workload::default());
    }

    #[test]
    fn without_any_hierarchy_the_process_tells() {
        let machine = Machine::new("4:memory:/\n");
        fs::write(machine.proc_root().join("self/mountinfo"), "").unwrap();
        let mut workloads = machine.workloads();
        let (path, workload) = docker(ID);
        machine.process(7, &format!("4:memory:{path}\n"));
        assert!(workloads.is_empty());
        assert_eq!(workloads.of(0, 7), workload);
        assert_eq!(workloads.of(99, 7), workload);
        assert_eq!(workloads.of(99, 8), Workload::default());
    }

    #[test]
    fn in_another_pid_namespace_numbers_of_processes_are_not_used() {
        let machine = Machine::new("4:memory:/\n0::/\n");
        let link = machine.proc_root().join("self/ns/pid");
        fs::remove_file(&link).unwrap();
        symlink("pid:[4026532001]", &link).unwrap();
        let mut workloads = machine.workloads();
        let (path, _) = docker(ID);
        machine.process(7, &format!("4:memory:{path}\n0::{path}\n"));
        assert_eq!(workloads.of(0, 7), Workload::default());
        assert_eq!(workloads.of_process(7), Workload::default());
    }
}
