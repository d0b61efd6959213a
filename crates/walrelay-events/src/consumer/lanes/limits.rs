//! How much runs and is buffered at once, and which partitions are full.

use std::time::Instant;

use crate::consumer::topic_partition::TopicPartition;

/// How much runs and is buffered at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Handlers of all partitions.
    pub(crate) max_concurrency: usize,
    /// Records per run.
    pub(crate) max_run: usize,
    /// Buffered records per partition.
    pub(crate) max_buffered_records: usize,
    /// Buffered bytes of all partitions.
    pub(crate) max_buffered_bytes: u64,
}

/// Which partitions to pause and to resume.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Balance {
    /// These stayed full.
    pub(crate) pause: Vec<TopicPartition>,
    /// These were paused and are half empty again.
    pub(crate) resume: Vec<TopicPartition>,
}

/// What is done about the records of a partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flow {
    Polled,
    /// It was full, and is not half empty yet. Nothing is polled.
    Held {
        since: Instant,
    },
    /// Nothing is fetched from Kafka.
    Paused,
}

/// What all partitions together buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) partitions: usize,
    pub(super) bytes: u64,
}

impl Limits {
    /// Returns whether a partition that buffers this much is full.
    pub(super) fn is_full(&self, load: Load, bytes: u64, records: usize) -> bool {
        let Self { max_buffered_records, max_buffered_bytes, .. } = *self;
        // It is asked for each record: the share comes last, because a division takes long.
        let is_over_share = || load.bytes >= max_buffered_bytes / 3 * 2 && bytes >= self.share(load);
        records >= max_buffered_records || load.bytes >= max_buffered_bytes || is_over_share()
    }

    /// Returns whether a paused partition that buffers this much can be resumed.
    pub(super) fn has_room(&self, load: Load, bytes: u64, records: usize) -> bool {
        let Self { max_buffered_records, max_buffered_bytes, .. } = *self;
        let is_under_share = bytes <= self.share(load) / 2 && load.bytes < max_buffered_bytes;
        records <= max_buffered_records / 2 && (is_under_share || load.bytes <= max_buffered_bytes / 3)
    }

    /// The bytes that each partition may buffer, whatever the others do.
    fn share(&self, load: Load) -> u64 {
        self.max_buffered_bytes / 3 / (load.partitions.max(1) as u64)
    }
}
