//! An application that writes at a steady rate, whatever happens to Kafka.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::support::source::Sql;

const TRANSACTIONS_PER_SECOND: u32 = 50;
const KEYS: u32 = 200;

/// Writes until it is stopped.
pub(crate) struct Writer {
    written: Arc<AtomicU64>,
    slowest_micros: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub(crate) fn start(url: &str, events_per_second: u32) -> Self {
        let sql = Sql::connect(url);
        let rows = (events_per_second / TRANSACTIONS_PER_SECOND).max(1);
        let transaction = format!("SELECT emit('k' || floor(random() * {KEYS})::int) FROM generate_series(1, {rows})");
        let (written, slowest, over) = (Arc::default(), Arc::default(), Arc::default());
        let (count, slowest_micros, is_over): (Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>) =
            (Arc::clone(&written), Arc::clone(&slowest), Arc::clone(&over));
        let thread = thread::spawn(move || {
            let mut due = Instant::now();
            while !is_over.load(Relaxed) {
                let began = Instant::now();
                sql.run(&transaction);
                count.fetch_add(u64::from(rows), Relaxed);
                slowest_micros.fetch_max(began.elapsed().as_micros() as u64, Relaxed);
                // Due by the clock, so that a slow transaction is made up for.
                due += Duration::from_secs(1) / TRANSACTIONS_PER_SECOND;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        });
        Self { written, slowest_micros: slowest, is_over: over, thread }
    }

    /// How many events are committed.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// How long the slowest transaction took since the last question.
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest_micros.swap(0, Relaxed))
    }

    /// Stops it; a transaction that failed has ended it with a panic.
    pub(crate) fn stop(self) -> u64 {
        self.is_over.store(true, Relaxed);
        self.thread.join().unwrap();
        self.written.load(Relaxed)
    }
}
