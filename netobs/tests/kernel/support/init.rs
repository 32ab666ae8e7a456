//! Events that no BPF program is told of.
//!
//! Some kernels (a 6.18 of a cloud provider was seen to) run no tracing program while the current
//! task is a thread of process 1. Timers run on top of whatever task they interrupt, so a few
//! retransmissions can happen there. ftrace sees every event with the task it came on top of: this
//! is the evidence by which a test allows for them, one by one.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Begins the name of every ftrace instance of these tests, and of nobody else's.
const MARK: &str = "netobskt-";

/// An ftrace instance of the test's own that records retransmissions.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Keeps the tracefs, which is mounted nowhere any more.
    _root: File,
    instance: PathBuf,
}

impl Watch {
    /// Starts recording. `None` when this kernel has no ftrace: then there is no evidence, and
    /// every event must have been seen.
    pub(crate) fn start() -> Option<Self> {
        let (root, path) = tracefs()?;
        sweep(&path);
        // Tests run beside each other.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), STARTED.fetch_add(1, Relaxed));
        let instance = path.join(format!("instances/{MARK}{pid}-{number}"));
        fs::create_dir(&instance).unwrap();
        let watch = Self {
            _root: root,
            instance,
        };
        fs::write(watch.instance.join("buffer_size_kb"), "4096").unwrap();
        for event in ["tcp_retransmit_synack", "tcp_retransmit_skb"] {
            let enable = watch.instance.join(format!("events/tcp/{event}/enable"));
            fs::write(enable, "1").unwrap();
        }
        Some(watch)
    }

    /// How many events of a tracepoint came on top of process 1, with `detail` (such as `sport=80
    /// `) in their line.
    pub(crate) fn on_init(&self, event: &str, detail: &str) -> u64 {
        let threads: Vec<String> = fs::read_dir("/proc/1/task")
            .unwrap()
            .filter_map(|thread| thread.unwrap().file_name().into_string().ok())
            .collect();
        self.count(event, detail, |line| {
            let task = line.trim_start().split(" [").next().unwrap_or_default();
            let pid = task.trim_end().rsplit('-').next().unwrap_or_default();
            threads.iter().any(|thread| thread == pid)
        })
    }

    /// How many events of a tracepoint there were, on top of whatever task.
    pub(crate) fn all(&self, event: &str, detail: &str) -> u64 {
        self.count(event, detail, |_| true)
    }

    fn count(&self, event: &str, detail: &str, also: impl Fn(&str) -> bool) -> u64 {
        let needle = format!(": {event}: ");
        let trace = fs::read_to_string(self.instance.join("trace")).unwrap();
        let counted = trace
            .lines()
            .filter(|line| line.contains(&needle) && line.contains(detail) && also(line));
        u64::try_from(counted.count()).unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Nobody to report to: the next run sweeps.
        let _ = fs::write(self.instance.join("events/enable"), "0");
        let _ = fs::remove_dir(&self.instance);
    }
}

/// A tracefs and the way to it, without a mount that anybody else would see.
fn tracefs() -> Option<(File, PathBuf)> {
    let place = tempfile::tempdir().unwrap();
    let nothing = None::<&str>;
    mount(
        Some("tracefs"),
        place.path(),
        Some("tracefs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        nothing,
    )
    .ok()?;
    let root = File::open(place.path());
    umount2(place.path(), MntFlags::MNT_DETACH).unwrap();
    let root = root.unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
    Some((root, path))
}

/// Removes the instances of runs that were killed.
fn sweep(tracefs: &Path) {
    for entry in fs::read_dir(tracefs.join("instances")).unwrap() {
        let name = entry.unwrap().file_name();
        let run = name.to_str().and_then(|name| name.strip_prefix(MARK));
        if let Some((pid, _)) = run.and_then(|run| run.split_once('-'))
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = fs::remove_dir(tracefs.join("instances").join(&name));
        }
    }
}
