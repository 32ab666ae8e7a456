//! Real cgroups, a thousand of them: found by their numbers, in a time that does not matter.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use netobs::sys::{
    cgroup::{Workload, Workloads, legacy_controller},
    mountinfo,
};
use testbed::require;

const PODS: u32 = 333;

/// Cgroups of this test, removed when dropped.
struct Made {
    top: PathBuf,
    /// Innermost first.
    directories: Vec<PathBuf>,
}

impl Made {
    fn new() -> Self {
        let proc_root = Path::new("/proc");
        let own = proc_root.join("self/mountinfo");
        let mount = match legacy_controller(proc_root) {
            None => mountinfo::of_type(&own, "cgroup2").next(),
            Some(name) => mountinfo::of_type(&own, "cgroup").find(|mount| {
                mount
                    .options
                    .to_str()
                    .unwrap()
                    .split(',')
                    .any(|it| it == name)
            }),
        };
        let top = mount
            .unwrap()
            .point
            .join(format!("netobs-test-{}", process::id()));
        Self {
            top,
            directories: Vec::new(),
        }
    }

    /// Makes a cgroup and those above it; returns its number and its path.
    fn make(&mut self, below: &str) -> u64 {
        let mut directory = self.top.clone();
        for name in below.split('/') {
            if !directory.exists() {
                fs::create_dir(&directory).unwrap();
                self.directories.push(directory.clone());
            }
            directory.push(name);
        }
        fs::create_dir(&directory).unwrap();
        self.directories.push(directory.clone());
        fs::metadata(&directory).unwrap().ino()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for directory in self.directories.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
}

fn pod(number: u32) -> String {
    format!(
        "kubepods/burstable/pod{number:08x}-0000-4000-8000-000000000000/{number:012x}{:052x}",
        0
    )
}

mod host_only {
    use super::*;

    #[test]
    fn a_thousand_cgroups_are_found_by_their_numbers() {
        require!(require::root());
        let mut made = Made::new();
        let numbers: Vec<(u64, Workload)> = (1..=PODS)
            .map(|number| {
                let path = pod(number);
                let id = made.make(&path);
                // What a container makes below its own.
                made.make(&format!("{path}/init"));
                (id, Workload::from_cgroup_path(&format!("/{path}")))
            })
            .collect();
        let begun = Instant::now();
        let mut workloads = Workloads::new(Path::new("/proc"));
        let took = begun.elapsed();
        println!("{} cgroups walked over in {took:?}", workloads.len());
        assert!(workloads.len() > 1000);
        assert!(took < Duration::from_secs(2));
        for (number, workload) in &numbers {
            assert!(workload.container().is_some() && workload.pod().is_some());
            assert_eq!(workloads.find(*number, 0), Some(*workload));
        }
        let begun = Instant::now();
        let rounds = 100_000_u32;
        for (number, _) in numbers.iter().cycle().take(rounds as usize) {
            std::hint::black_box(workloads.find(*number, 0));
        }
        println!("a number that is known: {:?}", begun.elapsed() / rounds);
        let begun = Instant::now();
        for _ in 0..1000 {
            std::hint::black_box(workloads.of_process(process::id()));
        }
        println!("a process: {:?}", begun.elapsed() / 1000);

        // One that is new, without its process: found by a walk, at the latest with the next.
        let late = made.make(&pod(PODS + 1));
        let wanted = Workload::from_cgroup_path(&format!("/{}", pod(PODS + 1)));
        let found = testbed::witness::wait_for(Duration::from_secs(10), "the new cgroup", || {
            Ok(workloads.find(late, 0))
        });
        assert_eq!(found.unwrap(), wanted);

        // One that is gone keeps its name for a while.
        let (first, workload) = numbers[0];
        drop(made);
        assert_eq!(workloads.find(first, 0), Some(workload));
    }

    /// The number of a live process' cgroup, which other tests compare with the kernel's.
    #[test]
    fn a_process_is_in_the_cgroup_that_it_was_moved_to() {
        require!(require::root());
        let mut made = Made::new();
        let id = made.make(&pod(7));
        let mut workloads = Workloads::new(Path::new("/proc"));
        let mut child = process::Command::new("sleep").arg("60").spawn().unwrap();
        let place = made.directories.last().unwrap().join("cgroup.procs");
        fs::write(place, child.id().to_string()).unwrap();
        assert_eq!(workloads.number_of(child.id()), Some(id));
        assert_eq!(
            workloads.find(id, child.id()),
            Some(Workload::from_cgroup_path(&format!("/{}", pod(7))))
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(workloads.number_of(child.id()), None);
    }
}
