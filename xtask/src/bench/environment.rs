//! On what a run was made.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::{command, workspace};

/// The machine, the kernel and the versions of everything that took part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Environment {
    /// Seconds since 1970.
    pub(super) time: u64,
    /// `uname -srvm`.
    pub(super) kernel: String,
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory_megabytes: u64,
    /// Load averages over 1, 5 and 15 minutes when the run began: others' work spoils figures.
    pub(super) load: String,
    pub(super) distribution: String,
    pub(super) rustc: String,
    /// The revision that was measured, with `+` when the checkout had changes.
    pub(super) revision: String,
    /// Name and version of each peer that is here.
    pub(super) versions: Vec<(String, String)>,
}

impl Environment {
    pub(super) fn read(versions: Vec<(String, String)>) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, key: &str, separator| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(separator))
                .map_or_else(String::new, |value| {
                    value.trim().trim_matches('"').to_owned()
                })
        };
        let said = |program: &str, arguments: &[&str]| {
            command::output(Command::new(program).args(arguments))
                .map_or_else(String::new, |text| text.trim().to_owned())
        };
        let in_checkout = |arguments: &[&str]| {
            command::output(
                Command::new("git")
                    .arg("-C")
                    .arg(workspace::root())
                    .args(arguments),
            )
            .map_or_else(String::new, |text| text.trim().to_owned())
        };
        let changed = !in_checkout(&["status", "--porcelain", "--untracked-files=no"]).is_empty();
        let memory = field(&read("/proc/meminfo"), "MemTotal", ":");
        let kilobytes = memory.split(' ').next().and_then(|n| n.parse::<u64>().ok());
        let load = read("/proc/loadavg");
        let load: Vec<&str> = load.split(' ').take(3).collect();
        Self {
            time: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            kernel: said("uname", &["-srvm"]),
            cpu: field(&read("/proc/cpuinfo"), "model name", ":"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_megabytes: kilobytes.unwrap_or(0) / 1000,
            load: load.join(" "),
            distribution: field(&read("/etc/os-release"), "PRETTY_NAME", "="),
            rustc: said("rustc", &["-V"]),
            revision: in_checkout(&["rev-parse", "--short=12", "HEAD"])
                + if changed { "+" } else { "" },
            versions,
        }
    }
}
