//! Standard process metrics, read from the operating system at each scrape.

use std::fmt;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;
use prometheus_client::registry::Unit;

use super::encoder::Page;

pub(super) fn write(page: &mut Page<'_>, up_since_ms: u64) -> fmt::Result {
    let started = "Start time of the process (Unix time)";
    page.gauge("process_start_time", started, Some(&Unit::Seconds), up_since_ms as f64 / 1_000.0)?;
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        page.seconds("process_cpu", "CPU time of the process, user and system", micros as f64 / 1e6)?;
    }
    if let Some(resident) = resident() {
        page.gauge("process_resident_memory", "Resident memory", Some(&Unit::Bytes), resident as f64)?;
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // Reading the directory opens one descriptor itself.
        page.gauge("process_open_fds", "Open file descriptors", None, open.count().saturating_sub(1) as f64)?;
    }
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((most, _)) => page.gauge("process_max_fds", "Most file descriptors that may be open", None, most as f64),
        Err(_) => Ok(()),
    }
}

/// Resident memory (octets), from `VmRSS` in /proc/self/status, see proc(5).
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}
