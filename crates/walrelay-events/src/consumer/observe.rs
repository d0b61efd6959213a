//! What a consumer reports about itself.

use std::time::Duration;

use crate::consumer::record::Record;
use crate::consumer::topic_partition::TopicPartition;
use crate::consumer::verdict::Verdict;

/// An event in the life of a consumer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Observed<'a> {
    /// A handler returned.
    Handled {
        /// The record that was handled.
        record: &'a Record,
        /// What the consumer does with the record now.
        verdict: &'a Verdict,
        /// How long the handler took.
        took: Duration,
    },
    /// A record was written to the dead-letter topic.
    DeadLettered {
        /// The original record.
        record: &'a Record,
        /// Why it was dead-lettered.
        reason: &'a str,
    },
    /// A record could not be written to the dead-letter topic. The write is retried. Until it succeeds, later records
    /// of the same key wait, and no later offset of the partition is committed.
    DeadLetterFailed {
        /// The original record.
        record: &'a Record,
        /// Kafka's error.
        error: &'a str,
    },
    /// Partitions were revoked or lost while records were in handlers. The new owner handles these records again.
    RevokedInFlight {
        /// The number of records.
        records: usize,
    },
    /// The consumer lag of a partition.
    Lag {
        /// The partition that lags.
        partition: &'a TopicPartition,
        /// The number of records between the last acked one and the end.
        records: u64,
    },
    /// A partition was assigned to this member.
    PartitionAssigned {
        /// The partition that this member consumes now.
        partition: &'a TopicPartition,
    },
    /// The member has joined its group and has its partitions. It has none if the group has more members than
    /// partitions.
    Joined,
    /// The group refuses the member. The consumer retries until the member can join.
    JoinRefused {
        /// Kafka's error.
        error: &'a str,
        /// What to do.
        next: &'a str,
    },
    /// The group has given the partitions to other members, because it did not hear of this one in time. The member
    /// joins again.
    AssignmentLost,
    /// A transaction of a producer is open, and the records behind it are not delivered before it ends. The lag of the
    /// partition counts them. Reported once, when the transaction has been open for some time.
    WaitingForTransaction {
        /// The partition whose handled records end at the open transaction.
        partition: &'a TopicPartition,
        /// The offset up to which records are delivered: Kafka's last stable offset.
        last_stable: i64,
        /// The offset after the newest record.
        end: i64,
    },
    /// The transaction that a partition waited for has ended.
    TransactionEnded {
        /// The partition that waited.
        partition: &'a TopicPartition,
    },
    /// A partition was revoked or lost. Another member reports its lag.
    PartitionRevoked {
        /// The partition that moved to another member.
        partition: &'a TopicPartition,
    },
    /// All brokers are down.
    AllBrokersDown,
    /// At least one broker is up again.
    BrokersUp {
        /// How long all of them were down.
        after: Duration,
    },
    /// The Kafka client was replaced: it had lost every broker, or its credentials had changed. The consumer rejoins
    /// the group.
    ClientReplaced,
    /// What the consumer holds, once a second.
    Load {
        /// Records in handlers.
        handlers_in_flight: usize,
        /// How long the oldest running handler has been running.
        longest_handler: Duration,
        /// How long the record with the oldest transient failure has had nothing but transient failures.
        longest_transient: Duration,
        /// Buffered records of all partitions.
        buffered_records: usize,
        /// Buffered bytes of all partitions.
        buffered_bytes: u64,
    },
}

/// Receives what a consumer reports. `Prometheus` is one, with the feature `prometheus`.
pub trait Observer: Send + Sync + 'static {
    /// Is called on the consumer's own thread and must not block.
    fn observe(&self, observed: &Observed<'_>);
}

impl Observer for () {
    fn observe(&self, _: &Observed<'_>) {}
}
