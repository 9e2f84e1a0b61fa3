//! Usage of the server, from /proc: CPU time and memory of a process and all its descendants (some servers have many
//! processes), and the number of datagrams that the kernel of this machine has dropped.

use std::collections::HashSet;
use std::fs;

/// Clock ticks per second in /proc/PID/stat: a constant of the Linux user interface on all supported platforms.
const TICKS: f64 = 100.0;

/// CPU and memory of a server at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// User and system time of all threads, including those that have ended (seconds).
    pub(super) cpu: f64,
    /// Resident memory (octets); shared pages count in each process.
    pub(super) rss: u64,
    /// Proportional set size (octets); shared pages count once.
    pub(super) pss: u64,
    /// Number of processes.
    pub(super) processes: usize,
}

impl Usage {
    /// Usage of these processes and their descendants.
    pub(super) fn of(roots: &[u32]) -> Usage {
        let mut sum = Usage::default();
        for (pid, cpu) in family(roots) {
            sum.cpu += cpu;
            sum.rss += kibibytes(&format!("/proc/{pid}/status"), "VmRSS:");
            sum.pss += kibibytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
            sum.processes += 1;
        }
        sum
    }
}

/// CPU seconds alone, which is cheaper to read than memory.
pub(super) fn cpu(roots: &[u32]) -> f64 {
    family(roots).iter().map(|(_, cpu)| cpu).sum()
}

/// Ids of these processes and of their descendants.
pub(super) fn processes(roots: &[u32]) -> Vec<u32> {
    family(roots).into_iter().map(|(pid, _)| pid).collect()
}

/// These processes and their descendants, each with its CPU seconds.
fn family(roots: &[u32]) -> Vec<(u32, f64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some((pid, (parent, cpu))) = pid.and_then(|pid: u32| Some((pid, stat(pid)?))) {
            all.push((pid, parent, cpu));
        }
    }
    let mut members: HashSet<u32> = roots.iter().copied().collect();
    let mut size = 0;
    while size != members.len() {
        size = members.len();
        let children: Vec<u32> = all.iter().filter(|(_, p, _)| members.contains(p)).map(|(pid, ..)| *pid).collect();
        members.extend(children);
    }
    all.into_iter().filter(|(pid, ..)| members.contains(pid)).map(|(pid, _, cpu)| (pid, cpu)).collect()
}

/// Parent and CPU seconds of a process.
fn stat(pid: u32) -> Option<(u32, f64)> {
    read_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name of the program may contain any character, so fields are counted from the last bracket: state, parent, ...,
/// and as eleventh and twelfth after the state user and system time.
fn read_stat(text: &str) -> Option<(u32, f64)> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<u64>().ok();
    Some((fields.get(1)?.parse().ok()?, (ticks(11)? + ticks(12)?) as f64 / TICKS))
}

fn kibibytes(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse().ok());
    value.map_or(0, |n: u64| n * 1024)
}

/// Processor, cores, memory and kernel of this machine, in one line.
pub(super) fn machine() -> String {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = kibibytes("/proc/meminfo", "MemTotal:") >> 30;
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{}, {cores} cores, {memory} GiB, Linux {}", model.unwrap_or("unknown processor"), kernel.trim())
}

/// Datagrams dropped because a socket's buffer was full, of all programs on this machine since it was started.
pub(super) fn dropped_datagrams() -> u64 {
    read_dropped(&fs::read_to_string("/proc/net/snmp").unwrap_or_default()).unwrap_or(0)
}

fn read_dropped(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let place = lines.next()?.split(' ').position(|name| name == "RcvbufErrors")?;
    lines.next()?.split(' ').nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_any_name() {
        let text = "7 (a) R 9) S 3 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(read_stat(text), Some((3, 3.0)));
        assert_eq!(read_stat("7 (a"), None);
    }

    #[test]
    fn dropped_datagrams_are_found_by_name() {
        let text = "Ip: A\nIp: 1\nUdp: InDatagrams NoPorts RcvbufErrors SndbufErrors\nUdp: 9 8 7 6\nUdpLite: 1\n";
        assert_eq!(read_dropped(text), Some(7));
    }

    #[test]
    fn this_process_is_seen() {
        let usage = Usage::of(&[std::process::id()]);
        assert!(usage.processes >= 1 && usage.rss > 0, "{usage:?}");
        assert_eq!(Usage::of(&[]), Usage::default());
    }
}
