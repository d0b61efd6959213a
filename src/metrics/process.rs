//! The `process_` series every exporter has, read from `/proc`.
//!
//! Where `/proc` is missing or looks different, the series are absent.

use std::fs;

use super::page::Page;

/// The clock ticks per second in `/proc`. The kernel has fixed it for user space on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Writes the series.
pub(super) fn write(page: &mut Page) {
    let stat = read("/proc/self/stat");
    let status = read("/proc/self/status");

    let cpu_seconds = stat_field(&stat, 14).zip(stat_field(&stat, 15)).map(|(user, system)| user + system);
    if let Some(ticks) = cpu_seconds {
        page.count("process_cpu_seconds_total", "User and system time spent.", ticks / TICKS_PER_SECOND);
    }
    let resident = status_bytes(&status, "VmRSS:");
    page.level_if("process_resident_memory_bytes", "Resident memory.", resident);
    let virtual_memory = status_bytes(&status, "VmSize:");
    page.level_if("process_virtual_memory_bytes", "Virtual memory.", virtual_memory);
    page.level_if("process_threads", "Threads.", stat_field(&stat, 20));
    page.level_if("process_open_fds", "Open file descriptors.", open_fds());
    page.level_if("process_max_fds", "The limit of open file descriptors.", max_fds());
    let start = boot_seconds().zip(stat_field(&stat, 22)).map(|(boot, ticks)| boot + ticks / TICKS_PER_SECOND);
    page.level_if("process_start_time_seconds", "Start time of the process, in seconds since 1970.", start);
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Reads a field by its number in proc_pid_stat(5). The second one, the name in parentheses, may itself hold blanks and
/// parentheses, so counting starts behind it.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn status_bytes(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1_024.0)
}

fn open_fds() -> Option<f64> {
    // Reading the directory holds one of them open.
    let count = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u32::try_from(count).ok().map(f64::from)
}

fn max_fds() -> Option<f64> {
    let limits = read("/proc/self/limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn boot_seconds() -> Option<f64> {
    let stat = read("/proc/stat");
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 41 42 15 16 17 18 9 20 77 22";
        assert_eq!(stat_field(stat, 14), Some(41.0));
        assert_eq!(stat_field(stat, 15), Some(42.0));
        assert_eq!(stat_field(stat, 20), Some(9.0));
        assert_eq!(stat_field(stat, 22), Some(77.0));
        assert_eq!(stat_field("", 14), None);
    }

    #[test]
    fn this_process_started_in_the_past_and_uses_memory() {
        let started = boot_seconds().unwrap() + stat_field(&read("/proc/self/stat"), 22).unwrap() / TICKS_PER_SECOND;
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!((0.0..86_400.0).contains(&(now - started + 1.0)), "started {started}, now {now}");
        assert!(status_bytes(&read("/proc/self/status"), "VmRSS:").unwrap() > 1_000_000.0);
        assert!(open_fds().unwrap() > 2.0 && max_fds().unwrap() > 2.0);
    }
}
