//! librdkafka's consumer: its properties, its rebalances, its errors.
//!
//! Rebalances are called from within a poll, on the consumer's own thread. When partitions come, the committed offset of each
//! is compared with what the topic still holds, since afterwards nobody could tell a gap from a first start. When they go,
//! their handlers come to an end first, then the prefix is committed, and only then are they given up.
//!
//! A commit that is under way while the group rebalances is refused, and nobody is told. So everything is committed again after
//! each rebalance, and whatever the statistics do not show as committed.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::error::KafkaResult;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaRespErr;
use tokio_util::sync::CancellationToken;

use crate::consumer::commit;
use crate::consumer::commit::SETTLED;
use crate::consumer::config::Config;
use crate::consumer::config::Protocol;
use crate::consumer::error::Error;
use crate::consumer::handling::Handling;
use crate::consumer::lanes::Lanes;
use crate::consumer::lanes::Partition;
use crate::consumer::positions;
use crate::consumer::record::Record;
use crate::consumer::retry::later;
use crate::kafka;
use crate::kafka::Brokers;

/// How long one question to a broker may take.
const ANSWER: Duration = Duration::from_secs(10);

/// librdkafka's own `max.poll.interval.ms`.
const POLL_INTERVAL: Duration = Duration::from_secs(300);

/// Properties that carry a guarantee or are options of their own, and why.
const GUARDED: [(&str, &str); 14] = [
    ("bootstrap.servers", "set Config::brokers"),
    ("metadata.broker.list", "set Config::brokers"),
    ("group.id", "set Config::group"),
    ("enable.auto.commit", "only what is done is committed"),
    ("enable.auto.offset.store", "only what is done is committed"),
    ("auto.commit.enable", "only what is done is committed"),
    ("offset.store.method", "offsets are committed to the group"),
    ("offset.store.path", "offsets are committed to the group"),
    ("enable.partition.eof", "the end of a partition is no error"),
    ("allow.auto.create.topics", "a topic that is missing is told of, not made"),
    ("auto.offset.reset", "set Config::start and Config::on_gap"),
    ("partition.assignment.strategy", "partitions are handed over one by one"),
    ("group.protocol", "set Config::protocol"),
    ("statistics.interval.ms", "lag is read from the statistics"),
];

/// These may be changed.
const HABITS: [(&str, &str); 3] = [
    // Little is fetched ahead, since lanes hold records as well.
    ("queued.min.messages", "10000"),
    ("queued.max.messages.kbytes", "8192"),
    // With so little, librdkafka's own second between two fetches would be most of the time.
    ("fetch.queue.backoff.ms", "10"),
];

/// What the rebalances and the consumer's loop share. Both are on one thread: the lock is never waited for.
pub(super) struct Context {
    config: Config,
    /// Outlives the client.
    handling: Arc<Mutex<Handling>>,
    stop: CancellationToken,
    brokers: Brokers,
}

impl Context {
    pub(super) fn new(config: Config, handling: Arc<Mutex<Handling>>, stop: CancellationToken) -> Self {
        Self { config, handling, stop, brokers: Brokers::default() }
    }

    /// Says whether the client has forgotten every broker: it will never hear of one again.
    pub(super) fn is_lost(&self) -> bool {
        self.brokers.are_forgotten()
    }

    pub(super) fn handling(&self) -> MutexGuard<'_, Handling> {
        self.handling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, given: &TopicPartitionList) {
        let mut handling = self.handling();
        let starts = positions::find(consumer, &self.config, given, &self.stop).unwrap_or_else(|error| {
            self.give_up(&mut handling, error);
            None
        });
        let partitions = partitions(given);
        tracing::info!(partitions = %told(&partitions), "partitions assigned");
        partitions.into_iter().for_each(|partition| handling.lanes.assign(partition));
        handling.lanes.forget_commits();
        handling.watch.assigned();
        let starts = starts.unwrap_or_default();
        starts.iter().for_each(|(partition, offset)| handling.lanes.begin(partition, *offset));
        // Without a place to start from there is an end: nothing is taken any more.
        let assignment = if starts.is_empty() { Ok(given.clone()) } else { list_at(&starts) };
        if let Err(error) = assignment.and_then(|assignment| consumer.incremental_assign(&assignment)) {
            handling.fail(Error::Failed(error));
        }
    }

    /// Brokers that have not answered for long may be lost to this client alone; anything else is for a person.
    pub(super) fn give_up(&self, handling: &mut Handling, error: Error) {
        if let Error::Failed(error) = &error {
            tracing::warn!(error = %error, "Kafka has not said for long where partitions start");
            self.brokers.forget();
        } else {
            handling.fail(error);
        }
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, taken: &TopicPartitionList) {
        if self.is_lost() {
            // It is closing, and what was in hand was given up before.
            if let Err(error) = consumer.incremental_unassign(taken) {
                tracing::debug!(error = %error, "partitions of a client that is lost");
            }
            return;
        }
        let partitions = partitions(taken);
        let mut handling = self.handling();
        if consumer.assignment_lost() {
            // Somebody else has them already: neither a wait nor a commit helps.
            tracing::warn!(partitions = %told(&partitions), "partitions were lost: the group went on without us");
        } else {
            finish(consumer, &mut handling, &partitions, self.config.revoke_drain);
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
        self.brokers.note(&statistics);
        if self.is_lost() {
            return;
        }
        let mut handling = self.handling();
        if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            handling.watch.reached();
        }
        for topic in statistics.topics.values() {
            for partition in topic.partitions.values().filter(|partition| partition.hi_offset >= 0) {
                let place = Partition { topic: topic.topic.as_str().into(), number: partition.partition };
                handling.lanes.committed(&place, partition.committed_offset);
                handling.ends_at(&place, partition.hi_offset);
            }
        }
    }
}

/// Lets what runs of partitions that go come to its end, for at most `limit`, and commits what is done of them.
pub(super) fn finish(
    consumer: &BaseConsumer<Context>,
    handling: &mut Handling,
    partitions: &[Partition],
    limit: Duration,
) {
    let until = later(Instant::now(), limit);
    handling.finish(partitions, until);
    let position = |partition: &Partition| Some((partition.clone(), handling.lanes.position(partition)?));
    let positions: Vec<_> = partitions.iter().filter_map(position).collect();
    if let Err(error) = commit::for_good(consumer, &positions, until.max(Instant::now() + SETTLED)) {
        tracing::warn!(error = %error, "the last offsets were not committed: their events come again");
    }
}

/// Makes a consumer, which has not joined its group yet.
pub(super) fn create(mut client: ClientConfig, context: Context) -> Result<BaseConsumer<Context>, Error> {
    client.set_log_level(RDKafkaLogLevel::Info);
    client.create_with_context(context).map_err(Error::Configuration)
}

/// Gives librdkafka's properties, or says which option cannot be used.
pub(super) fn properties(config: &Config) -> Result<ClientConfig, Error> {
    for name in config.properties.keys() {
        let guarded = GUARDED.iter().find(|(guarded, _)| guarded == name).map(|(_, why)| *why);
        if let Some(why) = guarded.or_else(|| kafka::refusal(name)) {
            return Err(Error::Option(format!("{name} cannot be set here: {why}")));
        }
    }
    if config.group.is_empty() || config.topics.is_empty() {
        return Err(Error::Option("a consumer needs a group and at least one topic".to_owned()));
    }
    if config.running_max == 0 || config.records_max == 0 || config.bytes_max == 0 {
        return Err(Error::Option("running_max, records_max and bytes_max are at least 1".to_owned()));
    }
    let poll_max = poll_interval(config);
    if config.revoke_drain.saturating_add(SETTLED) >= poll_max {
        return Err(Error::Option(format!(
            "revoke_drain is {:?}: with {SETTLED:?} for the last commit it must be shorter than max.poll.interval.ms, {poll_max:?}, \
             or the group goes on without this consumer meanwhile",
            config.revoke_drain
        )));
    }
    let mut client = ClientConfig::new();
    for (name, value) in HABITS {
        client.set(name, value);
    }
    for (name, value) in &config.properties {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", &config.brokers)
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("statistics.interval.ms", "5000");
    match config.protocol {
        Protocol::Classic => client.set("partition.assignment.strategy", "cooperative-sticky"),
        Protocol::Consumer => client.set("group.protocol", "consumer"),
    };
    Ok(client)
}

/// Gives `max.poll.interval.ms`.
pub(super) fn poll_interval(config: &Config) -> Duration {
    let given = config.properties.get("max.poll.interval.ms").and_then(|millis| millis.parse().ok());
    given.map_or(POLL_INTERVAL, Duration::from_millis)
}

/// Sorts an error: whether the consumer must stop.
pub(super) fn judge(error: &KafkaError) -> Option<Error> {
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return Some(Error::Failed(error.clone()));
    }
    // rdkafka does not give the code of what an administrator's question ended with.
    let code = if let KafkaError::AdminOp(code) = error { *code } else { error.rdkafka_error_code()? };
    let is_refusal = matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::Authentication
    );
    is_refusal.then(|| Error::Refused(error.clone()))
}

/// Gives the offset that is next in each assigned partition.
pub(super) fn next(consumer: &BaseConsumer<Context>, lanes: &Lanes<Record>) -> Vec<(Partition, i64)> {
    let taken = consumer.position();
    let next = |partition: &Partition| {
        let taken = taken.as_ref().ok()?.find_partition(&partition.topic, partition.number)?;
        match taken.offset() {
            Offset::Offset(next) => Some(next),
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
        }
    };
    let next = |partition: &Partition| next(partition).or_else(|| lanes.position(partition));
    lanes.partitions().filter_map(|partition| Some((partition.clone(), next(partition)?))).collect()
}

/// Goes on at other offsets. After an error librdkafka cannot seek, so the partitions are assigned anew.
pub(super) fn go_on_at(consumer: &BaseConsumer<Context>, places: &[(Partition, i64)]) -> KafkaResult<()> {
    consumer.incremental_unassign(&list(places.iter().map(|(partition, _)| partition)))?;
    consumer.incremental_assign(&list_at(places)?)
}

/// Asks for the oldest offset and the end of a partition. librdkafka 2.12 was seen to give the end for both, once in some
/// rebalances in which a question before had failed; then a new group would pass over everything. So a partition is empty
/// only if two answers in a row say so.
pub(super) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    number: i32,
    limit: impl Fn() -> Duration,
) -> KafkaResult<(i64, i64)> {
    let ask = || consumer.fetch_watermarks(topic, number, limit());
    let mut held = ask()?;
    while held.0 >= held.1 {
        let again = ask()?;
        if again == held {
            break;
        }
        held = again;
    }
    Ok(held)
}

/// Gives how long one question to a broker may take, if all must be answered by a time.
pub(super) fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()).min(ANSWER)
}

/// Builds the list that librdkafka takes.
pub(super) fn list<'p>(partitions: impl IntoIterator<Item = &'p Partition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.number);
    }
    list
}

/// The same, with an offset for each.
pub(super) fn list_at(places: &[(Partition, i64)]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in places {
        list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*offset))?;
    }
    Ok(list)
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
