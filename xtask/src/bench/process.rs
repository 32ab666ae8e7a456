//! What the kernel says of a process: its time, its memory, its BPF programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// Bytes in a megabyte; the kernel's kB are 1,024 bytes.
const MEGA: f64 = 1e6;

/// A process that is watched from outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process(pub(super) u32);

/// Memory in MB.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Resident, shared pages in full.
    pub(super) resident: f64,
    /// Resident, shared pages divided among those that share them.
    pub(super) proportional: f64,
    /// The highest that `resident` ever was.
    pub(super) peak: f64,
    /// BPF maps: memory of the kernel that is kept for the process.
    pub(super) maps: f64,
}

/// What a BPF program has cost since it was loaded, while the kernel kept count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProgramRuns {
    pub(super) id: u32,
    pub(super) nanoseconds: u64,
    pub(super) runs: u64,
}

impl Process {
    fn path(self, rest: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{rest}", self.0))
    }

    fn text(self, file: &str) -> Result<String> {
        let path = self.path(file);
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
    }

    /// User and system time of all its threads, those that ended included.
    pub(super) fn cpu(self) -> Result<Duration> {
        let pid = Pid::from_raw(i32::try_from(self.0).context("a process id")?);
        let clock = clock_getcpuclockid(pid)
            .with_context(|| format!("failed to find the CPU clock of process {}", self.0))?;
        let time = clock.now().context("failed to read a CPU clock")?;
        Ok(Duration::from(time))
    }

    pub(super) fn memory(self) -> Result<Memory> {
        let rollup = self.text("smaps_rollup")?;
        let status = self.text("status")?;
        let kilobytes = |text: &str, key| {
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            let bytes = field(text, key).unwrap_or(0) as f64 * 1024.0;
            bytes / MEGA
        };
        // By number: a process may hold a map by two descriptors.
        let maps: BTreeMap<u64, u64> = self
            .files("anon_inode:bpf-map")?
            .iter()
            .filter_map(|info| Some((field(info, "map_id")?, field(info, "memlock")?)))
            .collect();
        let maps: u64 = maps.values().sum();
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let maps = maps as f64 / MEGA;
        Ok(Memory {
            resident: kilobytes(&rollup, "Rss"),
            proportional: kilobytes(&rollup, "Pss"),
            peak: kilobytes(&status, "VmHWM"),
            maps,
        })
    }

    /// How often its threads that live gave up a CPU by themselves, that is: went to sleep.
    pub(super) fn sleeps(self) -> Result<u64> {
        let mut sleeps = 0;
        for thread in fs::read_dir(self.path("task")).context("failed to list threads")? {
            let status = thread
                .context("failed to list threads")?
                .path()
                .join("status");
            // A thread may end between the two.
            if let Ok(text) = fs::read_to_string(status) {
                sleeps += field(&text, "voluntary_ctxt_switches").unwrap_or(0);
            }
        }
        Ok(sleeps)
    }

    /// What each of its BPF programs has cost, by `kernel.bpf_stats_enabled`.
    pub(super) fn programs(self) -> Result<Vec<ProgramRuns>> {
        let mut programs: Vec<ProgramRuns> = self
            .files("anon_inode:bpf-prog")?
            .iter()
            .filter_map(|info| {
                Some(ProgramRuns {
                    id: u32::try_from(field(info, "prog_id")?).ok()?,
                    nanoseconds: field(info, "run_time_ns")?,
                    runs: field(info, "run_cnt")?,
                })
            })
            .collect();
        programs.sort_unstable_by_key(|program| program.id);
        programs.dedup_by_key(|program| program.id);
        Ok(programs)
    }

    /// How many hooks its programs are attached to.
    pub(super) fn hooks(self) -> Result<usize> {
        let mut hooks = 0;
        for entry in fs::read_dir(self.path("fd")).context("failed to list descriptors")? {
            let target = fs::read_link(entry.context("failed to list descriptors")?.path());
            let target = target.unwrap_or_default();
            let name = target.to_string_lossy();
            hooks += usize::from(
                [
                    "anon_inode:bpf_link",
                    "anon_inode:bpf-raw-tracepoint",
                    "anon_inode:[perf_event]",
                ]
                .contains(&&*name),
            );
        }
        Ok(hooks)
    }

    /// `fdinfo` of every descriptor of this kind.
    fn files(self, kind: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path("fd")).context("failed to list descriptors")? {
            let entry = entry.context("failed to list descriptors")?;
            if fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == kind) {
                let info = self.path("fdinfo").join(entry.file_name());
                found.extend(fs::read_to_string(info));
            }
        }
        Ok(found)
    }
}

/// The number behind `key:`.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_itself() {
        let own = Process(std::process::id());
        assert!(own.cpu().unwrap() > Duration::ZERO);
        let memory = own.memory().unwrap();
        assert!(memory.resident > 0.5 && memory.peak >= memory.resident * 0.9);
        assert!(own.programs().unwrap().is_empty());
    }

    #[test]
    fn fields_are_whole_words() {
        let text = "Pss:\t 12 kB\nPss_Dirty: 3 kB\nprog_id:\t77\n";
        assert_eq!(field(text, "Pss"), Some(12));
        assert_eq!(field(text, "prog_id"), Some(77));
        assert_eq!(field(text, "Rss"), None);
    }
}
