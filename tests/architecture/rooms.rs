//! The rooms of both packages, and what each imports of the others.
//!
//! A room is a module: a file, or a folder with all that is in it. A folder in which some files are rooms of their own
//! is no more than its `mod.rs`: nothing is in a room by way of the folder around it.

/// `room: the rooms it imports`, each below those it imports. What is `pure` decides, and never waits.
const ROOMS: &str = "
# The library: vocabulary.
fault:
kafka_error:
oauth:
signal:
kafka: fault oauth
pure table: fault
pure sqlstate:
pure event/headers:
pure event/id:
pure event/time:
pure event/encode: fault
pure event/decode: fault event/headers
event/trace: event/headers
event/envelope: event/trace
event: event/headers event/id event/time event/encode event/decode event/trace event/envelope

# The library: into the outbox.
outbox/error: fault sqlstate event
outbox/rows: event/encode event outbox/error
outbox/table: table
outbox/postgres: event outbox/error outbox/rows outbox/table
outbox/sqlx: event outbox/error outbox/rows outbox/table
outbox: table outbox/error outbox/table outbox/postgres

# The library: into Kafka, without an outbox.
publisher/config: oauth
publisher/error: fault event kafka_error
publisher/properties: kafka publisher/config publisher/error
pure publisher/queue:
pure publisher/record: event publisher/error
publisher/client: kafka publisher/record
publisher/outgoing: fault kafka_error publisher/error publisher/record
publisher/core: kafka kafka_error publisher/error publisher/queue publisher/client publisher/outgoing
publisher/supervisor: publisher/client publisher/core
publisher/pending: publisher/error publisher/outgoing publisher/core
publisher/publish: event/encode event kafka kafka_error publisher/config publisher/error publisher/properties
    publisher/record publisher/client publisher/outgoing publisher/core publisher/supervisor publisher/pending
publisher: signal publisher/config publisher/error publisher/outgoing publisher/pending publisher/publish

# The library: out of Kafka. What decides stands before what asks.
consumer/topic_partition:
consumer/raw:
pure consumer/position:
pure consumer/beginning:
pure consumer/gap: consumer/position
pure consumer/prefix: consumer/position
pure consumer/retry:
pure consumer/lanes: consumer/topic_partition consumer/position consumer/prefix consumer/retry
pure consumer/waiting: consumer/topic_partition
pure consumer/budget:
consumer/classifier: sqlstate
consumer/outcome: fault consumer/classifier
pure consumer/verdict: consumer/retry consumer/outcome
consumer/write_error: kafka_error kafka
consumer/error: fault kafka_error consumer/budget consumer/write_error consumer/topic_partition
consumer/raw:
consumer/record: consumer/topic_partition consumer/raw
consumer/observe: consumer/topic_partition consumer/verdict consumer/record
consumer/metrics: consumer/verdict consumer/observe
consumer/control: consumer/topic_partition consumer/observe
consumer/refusal:
consumer/brokers: consumer/topic_partition consumer/raw consumer/position consumer/error
consumer/dead_letter: kafka_error kafka event consumer/topic_partition consumer/raw consumer/write_error consumer/record
    consumer/brokers
consumer/config: oauth consumer/retry consumer/budget consumer/dead_letter
consumer/properties: kafka consumer/error consumer/config
consumer/commit: consumer/topic_partition consumer/position consumer/beginning consumer/brokers
consumer/first_start: consumer/topic_partition consumer/raw consumer/beginning consumer/brokers consumer/config
consumer/follow: kafka_error consumer/topic_partition consumer/record consumer/brokers
consumer/probe: consumer/topic_partition consumer/raw consumer/position consumer/gap consumer/error consumer/brokers
    consumer/config consumer/properties
consumer/positions: consumer/topic_partition consumer/position consumer/gap consumer/beginning consumer/lanes
    consumer/error consumer/brokers consumer/config consumer/properties consumer/commit consumer/first_start
    consumer/probe
consumer/skip: consumer/topic_partition consumer/position consumer/lanes consumer/error consumer/brokers
    consumer/config consumer/positions
consumer/cancellation:
consumer/wakeup:
consumer/handler: consumer/classifier consumer/outcome consumer/record consumer/cancellation
consumer/batch: consumer/classifier consumer/outcome consumer/handler
consumer/unknown: consumer/outcome
consumer/router: event consumer/outcome consumer/handler consumer/unknown
consumer/codec: event/decode event consumer/outcome consumer/record
consumer/tower: consumer/outcome consumer/handler
consumer/typed: event consumer/outcome consumer/record consumer/cancellation consumer/handler consumer/batch
    consumer/unknown consumer/codec
consumer/call: event/trace consumer/classifier consumer/outcome consumer/record consumer/handler consumer/batch
consumer/inbox: table event
consumer/tokens: kafka consumer/error consumer/config
consumer/preflight: kafka consumer/error consumer/observe consumer/brokers consumer/dead_letter consumer/config
consumer/health: consumer/topic_partition consumer/record consumer/observe consumer/refusal
consumer/starter: consumer/lanes consumer/retry consumer/write_error consumer/record
    consumer/cancellation consumer/wakeup consumer/handler consumer/call
consumer/dead_letter_write: fault consumer/topic_partition consumer/lanes consumer/write_error consumer/record
    consumer/dead_letter consumer/config consumer/wakeup consumer/starter
consumer/dispatcher: consumer/topic_partition consumer/beginning consumer/lanes consumer/retry consumer/waiting
    consumer/budget consumer/outcome consumer/verdict consumer/error consumer/record consumer/observe consumer/control
    consumer/dead_letter consumer/config consumer/cancellation consumer/wakeup consumer/call consumer/health
    consumer/starter consumer/dead_letter_write
consumer/rebalance: kafka consumer/topic_partition consumer/retry consumer/error consumer/brokers consumer/config
    consumer/refusal consumer/properties consumer/commit consumer/positions consumer/cancellation consumer/wakeup
    consumer/dispatcher
consumer/leaving: consumer/topic_partition consumer/raw consumer/retry consumer/error consumer/properties
    consumer/commit consumer/positions consumer/rebalance
consumer/thread: consumer/error consumer/control consumer/dead_letter
consumer/runtime: consumer/topic_partition consumer/raw consumer/lanes consumer/retry consumer/classifier
    consumer/error consumer/observe consumer/control consumer/brokers consumer/dead_letter consumer/config
    consumer/properties consumer/commit consumer/first_start consumer/positions consumer/skip consumer/cancellation
    consumer/wakeup consumer/handler consumer/batch consumer/call consumer/tokens consumer/preflight
    consumer/dispatcher consumer/rebalance consumer/leaving consumer/thread
consumer: signal consumer/topic_partition consumer/retry consumer/budget consumer/classifier consumer/outcome
    consumer/verdict consumer/error consumer/record consumer/observe consumer/metrics consumer/control
    consumer/dead_letter consumer/config consumer/cancellation consumer/handler consumer/batch consumer/unknown
    consumer/router consumer/codec consumer/typed consumer/runtime

# The library: for tests, and for the program.
testing/error: fault kafka_error
testing/broker: testing/error
testing/postgres: testing/error
testing/harness: event/encode event consumer/classifier consumer/lanes consumer/retry consumer/verdict consumer/handler
    consumer/batch consumer/call consumer
testing: testing/error testing/broker testing/postgres testing/harness
internal: kafka consumer/raw consumer/follow

# Level 0: vocabulary.
pure lsn:
pure cursor:
pure secret:
units:
pure shell:
measure:

# Level 1a: pure, each after what stands before it in the data flow.
pure relay/decode: lsn cursor
pure relay/record: cursor relay/decode
pure relay/ledger: lsn
pure relay/pipeline: fault lsn cursor relay/decode relay/record relay/ledger
pure relay/stream/feedback: lsn relay/ledger
pure relay/stream/phase: relay/pipeline relay/stream/feedback
pure relay/stream/resume: lsn
pure relay/stream/coalesce:
pure relay/stream/silence: lsn
pure relay/stream/synchronous:
pure relay/stream/wal_budget:
pure relay/catalog/coverage:
pure relay/retry/backoff:
pure relay/retry/stalls:
pure relay/retry/recurrence:
pure relay/poll/sweep:
pure relay/poll/selection:
pure relay/poll/interval:

# Level 1b: rooms with I/O.
relay/postgres: fault lsn cursor units relay/stream/feedback
relay/metrics: fault lsn measure
relay/publish: fault oauth internal units relay/record relay/ledger relay/pipeline relay/metrics
relay/catalog/error: fault lsn relay/postgres
relay/catalog/row: lsn relay/postgres relay/catalog/error
relay/catalog/publication: relay/record relay/postgres relay/catalog/error relay/catalog/row
relay/catalog/slot: lsn relay/catalog/error relay/catalog/row
relay/catalog/table: relay/record relay/postgres relay/catalog/error relay/catalog/row
relay/catalog: relay/record relay/postgres relay/catalog/error relay/catalog/row relay/catalog/publication
    relay/catalog/slot relay/catalog/table
relay/stream/position: fault lsn relay/stream/feedback relay/stream/resume relay/postgres
relay/stream/slot_monitor: fault relay/stream/wal_budget relay/postgres relay/metrics
relay/stream/pipeline_metrics: lsn relay/pipeline relay/metrics
relay/stream/stall_report: fault relay/pipeline relay/metrics relay/publish
relay/poll/error: fault relay/record relay/retry/recurrence relay/postgres relay/catalog
pure relay/poll/sql: relay/record relay/poll/sweep relay/catalog
pure relay/poll/numbers: relay/catalog relay/poll/error relay/poll/sql
pure relay/peek/pending: fault lsn relay/record
pure relay/poll/outlet: lsn relay/record relay/ledger relay/pipeline

# Level 2: they know the rooms of their half.
relay/error: fault lsn relay/record relay/pipeline relay/stream/resume relay/retry/recurrence relay/postgres
    relay/metrics relay/publish relay/catalog relay/stream/position relay/poll/error
relay/settings: units relay/record relay/postgres relay/publish relay/error
relay/retry/recovery: fault relay/retry/backoff relay/retry/recurrence relay/metrics relay/publish relay/error
relay/retry:
relay/stream/catalog_watch: fault lsn relay/record relay/catalog/coverage relay/catalog relay/stream/position
    relay/error
relay/stream/holder: relay/postgres relay/error
relay/stream/advance: fault lsn relay/postgres relay/error relay/settings relay/stream/catalog_watch
relay/stream/examine: fault relay/record relay/stream/resume relay/stream/synchronous relay/postgres relay/catalog
    relay/stream/position relay/stream/slot_monitor relay/error relay/settings relay/stream/catalog_watch
relay/stream/keeper: fault relay/stream/feedback relay/stream/resume relay/stream/synchronous relay/postgres
    relay/metrics relay/stream/position relay/stream/slot_monitor relay/error relay/stream/catalog_watch
relay/stream/follow: fault relay/pipeline relay/stream/feedback relay/stream/phase relay/stream/coalesce
    relay/postgres relay/metrics relay/publish relay/stream/pipeline_metrics relay/stream/stall_report relay/error
    relay/stream/keeper
relay/stream/supervise: fault lsn relay/record relay/pipeline relay/stream/feedback relay/stream/resume
    relay/stream/silence relay/postgres relay/metrics relay/publish relay/stream/slot_monitor
    relay/stream/pipeline_metrics relay/stream/stall_report relay/error relay/settings relay/retry/recovery
    relay/stream/catalog_watch relay/stream/holder relay/stream/advance relay/stream/examine relay/stream/keeper
    relay/stream/follow
relay/stream:
relay/poll/outbox: relay/record relay/catalog relay/poll/sql relay/error relay/settings
relay/poll/value: relay/decode relay/poll/selection
relay/poll/grants: relay/postgres relay/catalog relay/poll/sql relay/poll/outbox
relay/poll/verify: relay/catalog relay/poll/error relay/poll/numbers relay/error relay/poll/outbox relay/poll/grants
relay/poll/table: relay/decode relay/record relay/catalog relay/poll/error relay/poll/sql relay/poll/numbers
    relay/poll/outbox relay/poll/verify
relay/poll/source: relay/decode relay/record relay/poll/selection relay/postgres relay/poll/error relay/poll/sql
    relay/poll/numbers relay/error relay/poll/value relay/poll/verify relay/poll/table
relay/poll/table_state: fault relay/record relay/poll/sweep relay/poll/selection relay/metrics relay/poll/error
    relay/error relay/poll/outbox relay/poll/table
relay/poll/unpublished: relay/decode relay/record relay/postgres relay/metrics relay/poll/error relay/poll/sql
    relay/peek/pending relay/error relay/settings relay/poll/outbox relay/poll/value relay/poll/verify relay/poll/table
relay/poll/end: relay/publish
relay/poll/batch_publisher: lsn relay/record relay/ledger relay/pipeline relay/retry/recurrence relay/postgres
    relay/metrics relay/publish relay/poll/error relay/poll/outlet relay/error relay/settings relay/retry/recovery
    relay/poll/table relay/poll/source relay/poll/table_state relay/poll/end
relay/poll: relay/retry/stalls relay/poll/selection relay/poll/interval relay/postgres relay/metrics relay/publish
    relay/poll/error relay/poll/sql relay/error relay/settings relay/retry/recovery relay/poll/outbox
    relay/poll/verify relay/poll/source relay/poll/table_state relay/poll/end relay/poll/batch_publisher
relay/inspect: fault lsn relay/stream/wal_budget relay/postgres relay/metrics relay/catalog relay/stream/position
    relay/stream/slot_monitor relay/error relay/settings relay/stream/holder relay/poll/outbox relay/poll/verify
pure relay/kafka_commands: relay/publish shell
relay/setup: fault internal lsn units shell relay/record relay/stream/resume relay/postgres relay/publish
    relay/catalog relay/stream/position relay/error relay/settings relay/stream/catalog_watch relay/stream/examine
    relay/stream/holder relay/poll/outbox relay/poll/grants relay/poll/verify relay/poll relay/kafka_commands
relay/peek/error: fault relay/error
pure relay/peek/decoder: lsn relay/decode relay/record relay/ledger relay/pipeline relay/peek/pending
relay/peek/wal: lsn relay/record relay/postgres relay/publish relay/catalog relay/stream/position relay/peek/pending
    relay/error relay/settings relay/stream/holder relay/peek/error relay/peek/decoder
relay/peek: relay/postgres relay/peek/pending relay/error relay/settings relay/poll/unpublished relay/peek/error
    relay/peek/wal
relay/teardown: fault lsn relay/postgres relay/error relay/settings relay/stream/holder
pure relay/check/error: fault
pure relay/check/report: fault
pure relay/check/login: units relay/postgres
pure relay/check/server: relay/stream/synchronous relay/postgres relay/error relay/settings relay/setup
    relay/check/error relay/check/report
relay/check/files: fault units relay/postgres relay/publish relay/settings relay/check/error relay/check/report
relay/check/connection: relay/postgres relay/error relay/settings relay/check/report relay/check/login
relay/check/facts: relay/error relay/settings relay/check/report relay/check/server relay/check/connection
pure relay/check/topic_error: fault
pure relay/check/topics: relay/publish relay/kafka_commands relay/check/report relay/check/topic_error
relay/check/outbox_topics: relay/record relay/postgres relay/error relay/check/report relay/check/topic_error
relay/check/kafka: relay/publish relay/error relay/settings relay/kafka_commands relay/check/report
    relay/check/topics relay/check/outbox_topics
relay/check/tables: relay/record relay/catalog relay/settings relay/check/report relay/check/connection
relay/check/wal: relay/record relay/stream/resume relay/postgres relay/metrics relay/catalog relay/stream/position
    relay/stream/slot_monitor relay/error relay/settings relay/stream/catalog_watch relay/stream/holder
    relay/stream/examine relay/check/error relay/check/report relay/check/server relay/check/connection
    relay/check/facts relay/check/outbox_topics relay/check/tables
relay/check/poll: relay/catalog relay/error relay/settings relay/poll/outbox relay/poll/verify relay/check/error
    relay/check/report relay/check/server relay/check/connection relay/check/facts relay/check/outbox_topics
relay/check: relay/settings relay/check/report relay/check/files relay/check/kafka relay/check/wal relay/check/poll
relay: relay/metrics relay/error relay/settings relay/stream/supervise relay/poll

# Level 3: they know everybody.
log: fault measure
metrics: measure relay/metrics relay
admin: fault lsn measure units relay/metrics relay metrics
config: fault secret units relay/record relay/postgres relay/publish relay log admin
explain:
cli: fault lsn event consumer/dead_letter consumer internal testing secret units shell relay/record relay/postgres
    relay/metrics relay/publish relay/inspect relay/peek relay/setup relay/teardown relay/check relay log metrics
    admin config explain
";

#[derive(Debug)]
pub struct Rooms {
    /// In the order of the table.
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    imports: Vec<&'static str>,
    is_pure: bool,
}

impl Rooms {
    pub fn new() -> Self {
        let mut rows: Vec<Row> = Vec::new();
        for line in ROOMS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            // A line that is indented goes on with the row above it.
            let (name, imports) = if line.starts_with(' ') { ("", line) } else { line.split_once(':').unwrap() };
            if !name.is_empty() {
                let pure = name.strip_prefix("pure ");
                rows.push(Row { name: pure.unwrap_or(name), imports: Vec::new(), is_pure: pure.is_some() });
            }
            rows.last_mut().unwrap().imports.extend(imports.split_whitespace());
        }
        Self { rows }
    }

    /// Gives the room of a module. A crate's root is in none.
    pub fn of(&self, module: &str) -> Option<&'static str> {
        let is_in = |room: &str| module.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let room = self.names().filter(|room| is_in(room)).max_by_key(|room| room.len())?;
        let is_parted = self.names().any(|other| other.strip_prefix(room).is_some_and(|rest| rest.starts_with('/')));
        (room == module || !is_parted).then_some(room)
    }

    /// The rooms, in the order of the table.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.rows.iter().map(|row| row.name)
    }

    /// Every room with each that it imports.
    pub fn imports(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.rows.iter().flat_map(|row| row.imports.iter().map(|target| (row.name, *target)))
    }

    pub fn allows(&self, room: &str, target: &str) -> bool {
        self.imports().any(|import| import == (room, target))
    }

    pub fn is_pure(&self, room: &str) -> bool {
        self.rows.iter().any(|row| row.name == room && row.is_pure)
    }
}
