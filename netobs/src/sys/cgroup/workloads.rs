//! From what the kernel knows of a socket's owner, numbers, to container and pod.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::hierarchy::{CGROUP_LIMIT, Controller, Hierarchy, Walk};
use super::index::{Answer, Index};
use super::process::{ProcessCgroups, Task, numbers_are_the_kernels};
use super::{Workload, legacy_controller};

/// The least time from one walk to the next.
const WALK_INTERVAL: Duration = Duration::from_millis(250);
/// Walks take at most one part in so many of a CPU's time.
const WALK_SHARE: u32 = 30;
/// A walk that took longer than this is next done on a thread of its own.
const PROMPT: Duration = Duration::from_millis(20);

/// Tells containers and pods by the number of a cgroup.
///
/// What a number stands for is kept, since it is never used for another cgroup; two minutes longer
/// than the cgroup itself, since a socket can outlive it. A number not seen before is looked up
/// through a process that is known to be in it, if there is one, else by walking over the hierarchy,
/// at a distance: on a thread of its own where that takes long.
///
/// **Nothing is kept by process**, whose numbers are used again: what is asked of one is read from
/// `/proc` each time.
#[derive(Debug)]
pub struct Workloads {
    proc_root: PathBuf,
    controller: Controller,
    hierarchies: Vec<Hierarchy>,
    index: Index,
    /// Whether the numbers of processes mean the same in the kernel and in `/proc`.
    processes: bool,
    walk: Option<JoinHandle<Walked>>,
    took: Duration,
    next_walk: Instant,
}

/// What came of a walk, and how long it took.
type Walked = (Walk, Duration);

impl Workloads {
    /// Finds the hierarchy that tells containers apart (see [`legacy_controller`]), and walks over
    /// it once.
    ///
    /// Process numbers are of use only in the initial pid namespace: in any other they would name
    /// other processes, so there cgroups are all that tells.
    #[must_use]
    pub fn new(proc_root: &Path) -> Self {
        let controller = legacy_controller(proc_root);
        let mut workloads = Self {
            proc_root: proc_root.to_owned(),
            controller,
            hierarchies: Hierarchy::find(proc_root, controller),
            index: Index::default(),
            processes: numbers_are_the_kernels(proc_root),
            walk: None,
            took: Duration::ZERO,
            next_walk: Instant::now(),
        };
        workloads.walk_here();
        debug!(
            hierarchy = controller.unwrap_or("unified"),
            cgroups = workloads.len(),
            took = ?workloads.took,
            "walked over the cgroups"
        );
        if !workloads.sees_all() {
            warn!(
                "cgroups outside this container cannot be seen: containers and pods are told only \
                 for processes that can be looked at"
            );
        }
        workloads
    }

    /// Whose the cgroup with this number is (0: not known). `task` is a process known to be in it
    /// (0: none). Nobody's when that is not known, or not yet: see [`Workloads::find`].
    pub fn of(&mut self, cgroup: u64, task: impl Into<Task>) -> Workload {
        self.find(cgroup, task).unwrap_or_default()
    }

    /// Like [`Workloads::of`], but nothing while the cgroup is still to be looked for: ask again at
    /// the next look.
    pub fn find(&mut self, cgroup: u64, task: impl Into<Task>) -> Option<Workload> {
        self.find_at(cgroup, task.into(), Instant::now())
    }

    /// Whose a process is, by its cgroups alone.
    #[must_use]
    pub fn of_process(&self, task: impl Into<Task>) -> Workload {
        let cgroups = self.cgroups(task.into());
        cgroups
            .as_ref()
            .map(ProcessCgroups::workload)
            .unwrap_or_default()
    }

    /// The number of the cgroup that a process is in, as the kernel side takes it.
    #[must_use]
    pub fn number_of(&self, task: impl Into<Task>) -> Option<u64> {
        let cgroups = self.cgroups(task.into())?;
        self.number(cgroups.path(self.controller)?)
    }

    /// Takes in a cgroup that was just made: its number and its path from the root of its hierarchy.
    pub fn learn(&mut self, cgroup: u64, path: &str) {
        self.index.learn(cgroup, Workload::from_cgroup_path(path));
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
        if let Answer::Known(workload) = self.index.get(cgroup, now) {
            return Some(workload);
        }
        if cgroup == 0 {
            return Some(self.of_process(task));
        }
        let cgroups = self.cgroups(task);
        if let Some(path) = cgroups.as_ref().and_then(|all| all.path(self.controller))
            && self.number(path) == Some(cgroup)
        {
            let workload = Workload::from_cgroup_path(path);
            self.index.learn(cgroup, workload);
            return Some(workload);
        }
        if !self.sees_all() {
            // A walk may not find it; a process that is said to be in it is the best there is.
            return Some(cgroups.map(|all| all.workload()).unwrap_or_default());
        }
        if !self.index.want(cgroup) {
            return Some(Workload::default());
        }
        if self.walk.is_some() || now < self.next_walk {
            return None;
        }
        if self.took > PROMPT {
            self.walk_elsewhere(now);
            return None;
        }
        self.index.walk_begins();
        self.walk_here();
        match self.index.get(cgroup, now) {
            Answer::Known(workload) => Some(workload),
            Answer::Unknown => Some(Workload::default()),
        }
    }

    fn sees_all(&self) -> bool {
        self.hierarchies.iter().any(Hierarchy::is_whole)
    }

    fn cgroups(&self, task: Task) -> Option<ProcessCgroups> {
        if !self.processes {
            return None;
        }
        ProcessCgroups::of(&self.proc_root, task)
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.hierarchies.iter().find_map(|part| part.number(path))
    }

    fn walk_here(&mut self) {
        let (found, took) = walk(&self.hierarchies);
        self.take(found, took);
    }

    fn walk_elsewhere(&mut self, now: Instant) {
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
        self.took = took;
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
            fs::write(proc_root.join("self/cgroup"), own).unwrap();
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

    /// Asks when a walk may be made.
    fn settled(workloads: &mut Workloads, cgroup: u64, pid: u32) -> Workload {
        workloads.next_walk = Instant::now();
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
        let (path, workload) = docker(ID);
        let number = machine.make(&path);
        workloads.next_walk = Instant::now();
        assert_eq!(workloads.of(424_242, 0), Workload::default());
        assert_eq!(workloads.len(), 1);
        assert_eq!(workloads.of(number, 0), workload);
    }

    #[test]
    fn walks_keep_a_distance() {
        let machine = Machine::new("0::/\n");
        let mut workloads = machine.workloads();
        workloads.next_walk = Instant::now() + Duration::from_secs(1);
        assert_eq!(workloads.find(424_242, 0), None);
        let (walk, _) = walk(&workloads.hierarchies);
        let before = Instant::now();
        workloads.take(walk, Duration::from_secs(1));
        assert!(workloads.next_walk >= before + Duration::from_secs(30));
    }

    #[test]
    fn long_walks_are_made_elsewhere() {
        let machine = Machine::new("0::/\n");
        let mut workloads = machine.workloads();
        workloads.took = Duration::from_secs(1);
        workloads.next_walk = Instant::now();
        let (path, workload) = docker(ID);
        let number = machine.make(&path);
        assert_eq!(workloads.find(number, 0), None);
        assert!(workloads.walk.is_some());
        workloads.rest();
        assert_eq!(workloads.find(number, 0), Some(workload));
    }

    #[test]
    fn a_cgroup_told_of_needs_no_walk() {
        let machine = Machine::new("0::/\n");
        let mut workloads = machine.workloads();
        let (path, workload) = docker(ID);
        workloads.learn(77, &path);
        workloads.next_walk = Instant::now() + Duration::from_secs(9);
        assert_eq!(workloads.find(77, 0), Some(workload));
    }

    #[test]
    fn with_version_1_the_numbers_are_of_the_controllers_hierarchy() {
        let machine = Machine::new("4:memory:/\n0::/\n");
        let line = format!(
            "4 3 0:38 / {} rw - cgroup cgroup rw,memory\n",
            machine.cgroup("").display()
        );
        fs::write(machine.proc_root().join("self/mountinfo"), line).unwrap();
        let mut workloads = machine.workloads();
        let (path, workload) = docker(ID);
        let number = machine.make(&path);
        machine.process(7, &format!("4:memory:{path}\n0::/\n"));
        assert_eq!(workloads.number_of(7), Some(number));
        assert_eq!(workloads.number_of(8), None);
        assert_eq!(workloads.find(number, 7), Some(workload));
        // Nothing is kept by process: its number is another's now.
        let (path, other) = docker(OTHER);
        machine.process(7, &format!("4:memory:{path}\n0::/\n"));
        assert_eq!(workloads.of_process(7), other);
        assert_eq!(workloads.find(number, 7), Some(workload));
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
        let machine = Machine::new("0::/\n");
        let link = machine.proc_root().join("self/ns/pid");
        fs::remove_file(&link).unwrap();
        symlink("pid:[4026532001]", &link).unwrap();
        let mut workloads = machine.workloads();
        let (path, workload) = docker(ID);
        let number = machine.make(&path);
        machine.process(7, &format!("0::{path}\n"));
        assert_eq!(workloads.of(0, 7), Workload::default());
        assert_eq!(workloads.of_process(7), Workload::default());
        assert_eq!(workloads.number_of(7), None);
        // The cgroup itself still tells.
        assert_eq!(settled(&mut workloads, number, 7), workload);
    }
}
