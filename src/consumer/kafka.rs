//! The one place that knows librdkafka's consumer: its properties, its rebalances, its commits.
//!
//! Rebalances are called from within a poll, on the consumer's own thread. When partitions come, the committed offset of each
//! is compared with what the topic still holds, since afterwards nobody could tell a gap from a first start. When they go,
//! their handlers come to an end first, then the prefix is committed, and only then are they given up.
//!
//! Nobody is told how an asynchronous commit ended: rdkafka calls no `commit_callback` for one
//! (<https://github.com/fede1024/rust-rdkafka/issues/856>), and a commit that is under way while the group rebalances is refused.
//! So everything is committed again after each rebalance, and whatever the statistics do not show as committed.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::CommitMode;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::error::KafkaResult;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaRespErr;

use crate::consumer::config::Config;
use crate::consumer::config::OnGap;
use crate::consumer::config::Start;
use crate::consumer::error::Error;
use crate::consumer::handling::Handling;
use crate::consumer::lanes::Partition;
use crate::consumer::observe::Observed;

/// How long one question to a broker may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the last commit waits for a group that is settling, and how often it tries.
const SETTLED: Duration = Duration::from_secs(3);
const SETTLING: Duration = Duration::from_millis(50);

/// Properties that carry a guarantee or are options of their own, and why.
const GUARDED: [(&str, &str); 9] = [
    ("bootstrap.servers", "set Config::brokers"),
    ("metadata.broker.list", "set Config::brokers"),
    ("group.id", "set Config::group"),
    ("enable.auto.commit", "only what is done is committed"),
    ("enable.auto.offset.store", "only what is done is committed"),
    ("auto.offset.reset", "set Config::start and Config::on_gap"),
    ("partition.assignment.strategy", "partitions are handed over cooperatively"),
    ("group.protocol", "partitions are handed over cooperatively"),
    ("statistics.interval.ms", "lag is read from the statistics"),
];

/// What the rebalances and the consumer's loop share. Both are on one thread: the lock is never waited for.
pub(super) struct Context {
    config: Config,
    handling: Mutex<Handling>,
}

impl Context {
    pub(super) fn new(config: Config, handling: Handling) -> Self {
        Self { config, handling: Mutex::new(handling) }
    }

    pub(super) fn handling(&self) -> MutexGuard<'_, Handling> {
        self.handling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, given: &TopicPartitionList) {
        let mut handling = self.handling();
        let assignment = match self.positions(consumer, given) {
            Ok(assignment) => assignment,
            Err(error) => {
                handling.fail(error);
                given.clone()
            }
        };
        let partitions = partitions(given);
        tracing::info!(partitions = %told(&partitions), "partitions assigned");
        partitions.into_iter().for_each(|partition| handling.lanes.assign(partition));
        handling.lanes.forget_commits();
        if let Err(error) = consumer.incremental_assign(&assignment) {
            handling.fail(Error::Failed(error));
        }
    }

    /// Finds where each partition starts.
    fn positions(
        &self,
        consumer: &BaseConsumer<Self>,
        given: &TopicPartitionList,
    ) -> Result<TopicPartitionList, Error> {
        let committed = consumer.committed_offsets(given.clone(), ANSWER).map_err(Error::Failed)?;
        let mut assignment = TopicPartitionList::new();
        for element in committed.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let start = match element.offset() {
                Offset::Offset(committed) => {
                    let (oldest, end) = consumer.fetch_watermarks(topic, partition, ANSWER).map_err(Error::Failed)?;
                    self.within(topic, partition, committed, (oldest, end))?
                }
                Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => {
                    match self.config.start {
                        Start::Earliest => Offset::Beginning,
                        Start::Latest => Offset::End,
                    }
                }
            };
            assignment.add_partition_offset(topic, partition, start).map_err(Error::Failed)?;
        }
        Ok(assignment)
    }

    /// Compares the committed offset with what the topic holds.
    fn within(&self, topic: &str, partition: i32, committed: i64, held: (i64, i64)) -> Result<Offset, Error> {
        let (oldest, end) = held;
        if (oldest..=end).contains(&committed) {
            return Ok(Offset::Offset(committed));
        }
        let gap =
            Error::Gap { group: self.config.group.clone(), topic: topic.to_owned(), partition, committed, oldest, end };
        match self.config.on_gap {
            OnGap::Stop => Err(gap),
            OnGap::GoOn => {
                tracing::warn!(error = %gap, "going on at the oldest record");
                Ok(Offset::Offset(oldest))
            }
        }
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, taken: &TopicPartitionList) {
        let partitions = partitions(taken);
        let mut handling = self.handling();
        if consumer.assignment_lost() {
            // Somebody else has them already: neither a wait nor a commit helps.
            tracing::warn!(partitions = %told(&partitions), "partitions were lost: the group went on without us");
        } else {
            handling.finish(&partitions, self.config.revoke_drain);
            let positions = partitions.iter().filter_map(|partition| {
                handling.lanes.position(partition).map(|position| (partition.clone(), position))
            });
            let positions: Vec<_> = positions.collect();
            if let Err(error) = commit_now(consumer, &positions) {
                tracing::warn!(error = %error, "the last offsets were not committed: their events come again");
            }
            tracing::info!(partitions = %told(&partitions), "partitions given up");
        }
        handling.forget(&partitions);
        // A pause outlives its assignment: a partition that comes back would stand still for ever.
        if let Err(error) = consumer.resume(taken) {
            handling.fail(Error::Failed(error));
        }
        if let Err(error) = consumer.incremental_unassign(taken) {
            handling.fail(Error::Failed(error));
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigned(consumer, partitions);
        } else {
            self.revoked(consumer, partitions);
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // With brokers away librdkafka repeats itself several times a second.
        tracing::debug!(?level, facility, text, "librdkafka");
    }

    fn stats(&self, statistics: Statistics) {
        let mut handling = self.handling();
        for topic in statistics.topics.values() {
            for partition in topic.partitions.values().filter(|partition| partition.hi_offset >= 0) {
                let place = Partition { topic: topic.topic.as_str().into(), number: partition.partition };
                handling.lanes.committed(&place, partition.committed_offset);
                let done = handling.lanes.position(&place).unwrap_or(partition.committed_offset);
                if done >= 0 && handling.lanes.partitions().any(|ours| *ours == place) {
                    let records = u64::try_from(partition.hi_offset - done).unwrap_or_default();
                    handling.observe(&Observed::Lag { partition: &place, records });
                }
            }
        }
    }
}

/// Makes a consumer, which has not joined its group yet.
pub(super) fn create(config: &Config, context: Context) -> Result<BaseConsumer<Context>, Error> {
    let mut client = properties(config)?;
    client.set_log_level(RDKafkaLogLevel::Info);
    client.create_with_context(context).map_err(Error::Configuration)
}

/// Gives librdkafka's properties, or says which option cannot be used.
pub(super) fn properties(config: &Config) -> Result<ClientConfig, Error> {
    for (name, why) in GUARDED {
        if config.properties.contains_key(name) {
            return Err(Error::Option(format!("{name} cannot be set here: {why}")));
        }
    }
    if config.group.is_empty() || config.topics.is_empty() {
        return Err(Error::Option("a consumer needs a group and at least one topic".to_owned()));
    }
    if config.running_max == 0 || config.records_max == 0 || config.bytes_max == 0 {
        return Err(Error::Option("running_max, records_max and bytes_max are at least 1".to_owned()));
    }
    let mut client = ClientConfig::new();
    client.set("queued.min.messages", "10000").set("queued.max.messages.kbytes", "8192");
    for (name, value) in &config.properties {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", &config.brokers)
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("statistics.interval.ms", "5000");
    Ok(client)
}

/// Commits positions: for each partition the offset of the next record to handle.
pub(super) fn commit(
    consumer: &BaseConsumer<Context>,
    positions: &[(Partition, i64)],
    mode: CommitMode,
) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    let mut offsets = TopicPartitionList::new();
    for (partition, position) in positions {
        offsets.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*position))?;
    }
    consumer.commit(&offsets, mode)
}

/// Commits for good, and waits for the answer. While the group settles who is in it a commit is refused, so it is tried for a
/// moment.
pub(super) fn commit_now(consumer: &BaseConsumer<Context>, positions: &[(Partition, i64)]) -> KafkaResult<()> {
    let until = Instant::now() + SETTLED;
    loop {
        let Err(error) = commit(consumer, positions, CommitMode::Sync) else { return Ok(()) };
        let is_settling = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::RebalanceInProgress | RDKafkaErrorCode::IllegalGeneration)
        );
        if !is_settling || Instant::now() >= until {
            return Err(error);
        }
        thread::sleep(SETTLING);
    }
}

/// Asks which assigned partition no longer holds what is next in it.
pub(super) fn find_gap(consumer: &BaseConsumer<Context>, config: &Config) -> Option<Error> {
    let assignment = consumer.assignment().ok()?;
    let committed = consumer.committed_offsets(assignment, ANSWER).ok()?;
    committed.elements().iter().find_map(|element| {
        let Offset::Offset(committed) = element.offset() else { return None };
        let (topic, partition) = (element.topic(), element.partition());
        let (oldest, end) = consumer.fetch_watermarks(topic, partition, ANSWER).ok()?;
        (!(oldest..=end).contains(&committed)).then(|| Error::Gap {
            group: config.group.clone(),
            topic: topic.to_owned(),
            partition,
            committed,
            oldest,
            end,
        })
    })
}

/// Sorts an error of a poll: whether the consumer must stop.
pub(super) fn judge(error: KafkaError) -> Option<Error> {
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return Some(Error::Failed(error));
    }
    let code = error.rdkafka_error_code()?;
    let is_refusal = matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::Authentication
    );
    is_refusal.then_some(Error::Refused(error))
}

/// Builds the list that librdkafka takes.
pub(super) fn list<'p>(partitions: impl IntoIterator<Item = &'p Partition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.number);
    }
    list
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    let partition = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| Partition {
        topic: Arc::from(element.topic()),
        number: element.partition(),
    };
    list.elements().iter().map(partition).collect()
}

fn told(partitions: &[Partition]) -> String {
    let names = partitions.iter().map(|partition| format!("{}[{}]", partition.topic, partition.number));
    names.collect::<Vec<_>>().join(" ")
}
