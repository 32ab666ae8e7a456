//! The kernel's own count of what BPF programs cost.

use std::fs;

use anyhow::{Context, Result};

const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Keeps `kernel.bpf_stats_enabled` at 1, and restores it when dropped. The kernel then reads its
/// clock before and after each run, which costs some 20 to 40 ns that are not all in the figure.
#[derive(Debug)]
pub(super) struct Statistics {
    before: String,
}

impl Statistics {
    pub(super) fn keep() -> Result<Self> {
        let before =
            fs::read_to_string(SETTING).context("failed to read kernel.bpf_stats_enabled")?;
        fs::write(SETTING, "1").context("failed to set kernel.bpf_stats_enabled")?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if fs::write(SETTING, self.before.trim()).is_err() {
            eprintln!(
                "kernel.bpf_stats_enabled was {} and is 1 now",
                self.before.trim()
            );
        }
    }
}
