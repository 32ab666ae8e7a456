//! The `process_*` families that every exporter has.

use procfs::process::Process;
use prometheus_client::encoding::DescriptorEncoder;

use super::family::Family;

const CPU: Family = Family {
    name: "process_cpu_seconds",
    help: "CPU time of netobs, user and system",
};
const RESIDENT: Family = Family {
    name: "process_resident_memory_bytes",
    help: "Resident memory of netobs",
};
const VIRTUAL: Family = Family {
    name: "process_virtual_memory_bytes",
    help: "Virtual memory of netobs",
};
const START: Family = Family {
    name: "process_start_time_seconds",
    help: "When netobs was started, seconds since 1970",
};
const OPEN_FDS: Family = Family {
    name: "process_open_fds",
    help: "Open file descriptors of netobs",
};
const MAX_FDS: Family = Family {
    name: "process_max_fds",
    help: "Most file descriptors that netobs may open",
};
const THREADS: Family = Family {
    name: "process_threads",
    help: "Threads of netobs",
};

/// What cannot be read is left out.
#[allow(
    clippy::cast_precision_loss,
    reason = "clock ticks since boot fit a float"
)]
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let Ok(process) = Process::myself() else {
        return Ok(());
    };
    if let Ok(stat) = process.stat() {
        let ticks = procfs::ticks_per_second() as f64;
        CPU.counter(encoder, [([], (stat.utime + stat.stime) as f64 / ticks)])?;
        RESIDENT.gauge(encoder, [([], stat.rss * procfs::page_size())])?;
        VIRTUAL.gauge(encoder, [([], stat.vsize)])?;
        THREADS.gauge(encoder, [([], stat.num_threads)])?;
        if let Ok(boot) = procfs::boot_time_secs() {
            START.gauge(encoder, [([], boot as f64 + stat.starttime as f64 / ticks)])?;
        }
    }
    if let Ok(count) = process.fd_count() {
        OPEN_FDS.gauge(encoder, [([], count as u64)])?;
    }
    if let Ok(limits) = process.limits()
        && let procfs::process::LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        MAX_FDS.gauge(encoder, [([], most)])?;
    }
    Ok(())
}
