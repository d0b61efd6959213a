//! What processes hold in memory, as Linux counts it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Everything resident of a process, shared pages included.
pub(crate) const RESIDENT: &str = "VmRSS:";
/// What is a process' own: of a PostgreSQL backend it leaves out the shared buffers.
pub(crate) const OWN: &str = "RssAnon:";

/// Watches a process until it is dropped.
pub(crate) struct Watch {
    pid: u32,
    field: &'static str,
    most_kib: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(pid: u32, field: &'static str) -> Self {
        let (most_kib, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (most, over) = (Arc::clone(&most_kib), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            while !over.load(Relaxed) {
                most.fetch_max(kib(pid, field).unwrap_or(0), Relaxed);
                thread::sleep(SAMPLE_INTERVAL);
            }
        });
        Self { pid, field, most_kib, is_over, thread: Some(thread) }
    }

    /// What it holds now, in MiB.
    pub(crate) fn now(&self) -> u64 {
        kib(self.pid, self.field).unwrap_or(0) / 1_024
    }

    /// The most it held since the last question, in MiB.
    pub(crate) fn most(&self) -> u64 {
        self.most_kib.swap(0, Relaxed).max(kib(self.pid, self.field).unwrap_or(0)) / 1_024
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The most a living process ever held, in MiB.
pub(crate) fn peak(pid: u32) -> u64 {
    kib(pid, "VmHWM:").unwrap() / 1_024
}

fn kib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
