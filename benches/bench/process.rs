//! What a process has used so far, thread by thread, as Linux tells it.

use std::fs;

/// What one thread has used.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) cpu_seconds: f64,
    /// How often it went to sleep and was woken.
    pub(crate) waits: u64,
}

/// Gives the CPU seconds of a process and its largest size in megabytes.
pub(crate) fn usage(pid: u32) -> (f64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    (cpu_seconds(&format!("/proc/{pid}/stat")), field(&status, "VmHWM:") / 1_024)
}

/// Gives the threads of a process, the busiest first.
pub(crate) fn threads(pid: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut threads: Vec<Thread> = tasks
        .filter_map(|task| {
            let task = task.ok()?;
            let (id, folder) = (task.file_name().into_string().ok()?, task.path().display().to_string());
            let status = fs::read_to_string(format!("{folder}/status")).ok()?;
            let name = fs::read_to_string(format!("{folder}/comm")).ok()?.trim().to_owned();
            let cpu_seconds = cpu_seconds(&format!("{folder}/stat"));
            Some(Thread { id, name, cpu_seconds, waits: field(&status, "voluntary_ctxt_switches:") })
        })
        .collect();
    threads.sort_by(|one, other| other.cpu_seconds.total_cmp(&one.cpu_seconds));
    threads
}

fn cpu_seconds(path: &str) -> f64 {
    let stat = fs::read_to_string(path).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
