//! What processes use of the machine, from `/proc`. A process that has ended uses nothing.

use std::fs;
use std::time::Duration;

/// Ticks of a second in `/proc`: the same on all architectures that Linux runs on today.
const TICKS: u64 = 100;

/// CPU time of the process itself, in user and kernel mode; to 10 ms.
#[must_use]
pub fn cpu(pid: u32) -> Duration {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return Duration::ZERO;
    };
    // The name in parentheses may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    ticks(fields.split_whitespace().skip(11).take(2))
}

/// The largest resident memory that the process ever had, in bytes.
#[must_use]
pub fn peak_memory(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// The resident memory of the process now, in bytes.
#[must_use]
pub fn memory(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The processes that the process has started and that still run.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let children = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    children
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// CPU time that all cores together were busy since the machine started.
#[must_use]
pub fn machine_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guests are part of user
    let fields = fields.split_whitespace().skip(1).take(8).enumerate();
    ticks(
        fields
            .filter(|(field, _)| ![3, 4].contains(field))
            .map(|(_, ticks)| ticks),
    )
}

fn ticks<'a>(fields: impl Iterator<Item = &'a str>) -> Duration {
    let ticks: u64 = fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

fn status(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        let (before, machine) = (cpu(pid), machine_cpu());
        let begin = Instant::now();
        while cpu(pid) < before + Duration::from_millis(50) {
            assert!(begin.elapsed() < Duration::from_mins(1));
        }
        assert!(machine_cpu() > machine);
        assert!(memory(pid) > 1 << 20);
        assert!(peak_memory(pid) >= memory(pid));
    }

    #[test]
    fn children_are_found_and_ended_processes_use_nothing() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!children(std::process::id()).contains(&child.id()));
        assert_eq!((cpu(child.id()), memory(child.id())), (Duration::ZERO, 0));
    }
}
