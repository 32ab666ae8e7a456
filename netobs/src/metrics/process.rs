//! The `process_*` families that every exporter has.

use procfs::process::Process;
use prometheus_client::encoding::DescriptorEncoder;

use super::family::families;

families! {
    CPU = Counter "process_cpu_seconds" []
        "CPU time of netobs, user and system";
    RESIDENT = Gauge "process_resident_memory_bytes" []
        "Resident memory of netobs";
    VIRTUAL = Gauge "process_virtual_memory_bytes" []
        "Virtual memory of netobs";
    START = Gauge "process_start_time_seconds" []
        "When netobs was started, seconds since 1970";
    OPEN_FDS = Gauge "process_open_fds" []
        "Open file descriptors of netobs";
    MAX_FDS = Gauge "process_max_fds" []
        "Most file descriptors that netobs may open";
    THREADS = Gauge "process_threads" []
        "Threads of netobs";
}

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
        CPU.encode(encoder, [([], (stat.utime + stat.stime) as f64 / ticks)])?;
        RESIDENT.encode(encoder, [([], stat.rss * procfs::page_size())])?;
        VIRTUAL.encode(encoder, [([], stat.vsize)])?;
        THREADS.encode(encoder, [([], stat.num_threads)])?;
        if let Ok(boot) = procfs::boot_time_secs() {
            START.encode(encoder, [([], boot as f64 + stat.starttime as f64 / ticks)])?;
        }
    }
    if let Ok(count) = process.fd_count() {
        OPEN_FDS.encode(encoder, [([], count as u64)])?;
    }
    if let Ok(limits) = process.limits()
        && let procfs::process::LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        MAX_FDS.encode(encoder, [([], most)])?;
    }
    Ok(())
}
