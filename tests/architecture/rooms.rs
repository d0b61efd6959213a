//! The rooms of both packages, and what each imports of the others.
//!
//! A room is a module: a file, or a folder with all that is in it. A folder in which some files are rooms of their own is no
//! more than its `mod.rs`: nothing is in a room by way of the folder around it.

/// `room: the rooms it imports`, each below those it imports. What is `pure` decides, and never waits.
const ROOMS: &str = "
# Level 0: vocabulary.
pure lsn:
pure cursor:
fault:
pure secret:
units:
measure:
kafka:
pure event/names:
pure event/time:
pure event/reason: event/names
pure event/decode: fault event/names event/reason
pure event/encode: fault
event/trace: event/names
event: event/names event/time event/decode event/encode event/trace

# Level 1a: pure, each after what stands before it in the data flow.
pure relay/decode: lsn cursor
pure relay/record: cursor relay/decode
pure relay/ledger: lsn
pure relay/pipeline: lsn cursor fault measure relay/decode relay/record relay/ledger
pure relay/stream/feedback: relay/ledger
pure relay/stream/phase: relay/pipeline relay/stream/feedback
pure relay/stream/resume: lsn
pure relay/stream/coalesce:
pure relay/stream/silence: lsn
pure relay/stream/synchronous:
pure relay/catalog/coverage:
pure relay/retry/backoff:
pure relay/retry/stalls: lsn
pure relay/retry/recurrence:
pure relay/poll/sweep:
pure relay/poll/selection:
pure relay/poll/interval:
pure consumer/prefix:
pure consumer/lanes: consumer/prefix
pure consumer/retry:
pure consumer/budget:
consumer/outcome: fault
pure consumer/verdict: consumer/retry consumer/outcome

# Level 1b: rooms with I/O.
relay/postgres: lsn cursor fault units relay/ledger
relay/metrics: lsn fault measure
relay/publish: fault units relay/record relay/ledger relay/pipeline relay/metrics
relay/catalog/error: lsn fault relay/postgres
relay/catalog/row: relay/postgres relay/catalog/error
relay/catalog/publication: relay/record relay/postgres relay/catalog/error relay/catalog/row
relay/catalog/slot: lsn relay/catalog/error relay/catalog/row
relay/catalog/table: relay/record relay/postgres relay/catalog/error relay/catalog/row
relay/catalog: relay/record relay/postgres relay/catalog/error relay/catalog/row relay/catalog/publication
    relay/catalog/slot relay/catalog/table
relay/stream/position: lsn fault relay/stream/feedback relay/stream/resume relay/postgres
relay/stream/slot_monitor: fault relay/postgres relay/metrics
relay/stream/pipeline_metrics: lsn relay/pipeline relay/metrics
relay/stream/stall_report: fault relay/pipeline relay/metrics relay/publish
relay/poll/error: fault relay/record relay/retry/recurrence relay/postgres relay/catalog
pure relay/poll/sql: relay/record relay/poll/sweep relay/catalog
pure relay/poll/numbers: relay/catalog relay/poll/error relay/poll/sql
pure relay/poll/outlet: lsn relay/record relay/ledger relay/pipeline
outbox/error: fault event
outbox/rows: event/encode event outbox
outbox/table: fault
outbox/postgres: event outbox/rows outbox
outbox/sqlx: event outbox/rows outbox
outbox: outbox/error outbox/table outbox/postgres

# The consumer.
consumer/error: fault consumer/budget
consumer/record: consumer/lanes
consumer/observe: consumer/lanes consumer/record
consumer/dead_letter: kafka consumer/lanes consumer/record consumer/kafka
consumer/config: consumer/retry consumer/budget consumer/dead_letter
consumer/positions: consumer/lanes consumer/error consumer/config consumer/commit consumer/kafka
consumer/commit: consumer/lanes consumer/kafka
consumer/kafka: kafka consumer/lanes consumer/retry consumer/error consumer/record consumer/config consumer/positions
    consumer/commit consumer/handling
consumer/handler: event consumer/outcome consumer/record
consumer/typed: event/decode event consumer/outcome consumer/record consumer/handler
consumer/call: event/trace event consumer/outcome consumer/record consumer/handler
consumer/inbox:
consumer/preflight: kafka consumer/error consumer/dead_letter consumer/config consumer/kafka
consumer/watch: consumer/lanes consumer/observe
consumer/handling: consumer/lanes consumer/retry consumer/budget consumer/outcome consumer/verdict consumer/error
    consumer/record consumer/observe consumer/dead_letter consumer/config consumer/handler consumer/call
    consumer/watch
consumer/runtime: consumer/lanes consumer/retry consumer/error consumer/observe consumer/dead_letter consumer/config
    consumer/positions consumer/commit consumer/kafka consumer/handler consumer/preflight consumer/handling
consumer: consumer/lanes consumer/retry consumer/budget consumer/outcome consumer/error consumer/record
    consumer/observe consumer/config consumer/handler consumer/typed consumer/runtime

# Level 2: they know the rooms of their half.
relay/error: lsn fault relay/record relay/pipeline relay/stream/resume relay/retry/recurrence relay/postgres
    relay/metrics relay/publish relay/catalog relay/stream/position relay/poll/error
relay/settings: units relay/record relay/postgres relay/publish relay/error
relay/retry/recovery: fault relay/retry/backoff relay/retry/recurrence relay/metrics relay/publish relay/error
relay/retry:
relay/stream/catalog_watch: lsn fault relay/record relay/catalog/coverage relay/catalog relay/stream/position
    relay/error
relay/stream/holder: relay/postgres relay/error
relay/stream/advance: lsn fault relay/postgres relay/error relay/settings relay/stream/catalog_watch
relay/stream/examine: fault relay/record relay/stream/resume relay/stream/synchronous relay/postgres relay/catalog
    relay/stream/position relay/stream/slot_monitor relay/error relay/settings relay/stream/catalog_watch
relay/stream/keeper: fault relay/stream/feedback relay/stream/resume relay/stream/synchronous relay/postgres
    relay/metrics relay/stream/position relay/stream/slot_monitor relay/error relay/stream/catalog_watch
relay/stream/follow: fault relay/pipeline relay/stream/feedback relay/stream/phase relay/stream/coalesce
    relay/postgres relay/metrics relay/publish relay/stream/pipeline_metrics relay/stream/stall_report relay/error
    relay/stream/keeper
relay/stream/supervise: lsn fault relay/record relay/pipeline relay/stream/feedback relay/stream/resume
    relay/stream/silence relay/postgres relay/metrics relay/publish relay/stream/slot_monitor
    relay/stream/pipeline_metrics relay/stream/stall_report relay/error relay/settings relay/retry/recovery
    relay/stream/catalog_watch relay/stream/holder relay/stream/advance relay/stream/examine relay/stream/keeper
    relay/stream/follow
relay/stream:
relay/poll/outbox: relay/record relay/poll/sql relay/error relay/settings
relay/poll/value: relay/decode relay/poll/selection
relay/poll/grants: relay/postgres relay/catalog relay/poll/sql relay/poll/outbox
relay/poll/verify: relay/catalog relay/poll/error relay/poll/numbers relay/error relay/poll/outbox relay/poll/grants
relay/poll/source: relay/decode relay/record relay/poll/selection relay/postgres relay/catalog relay/poll/error
    relay/poll/sql relay/poll/numbers relay/error relay/poll/outbox relay/poll/value relay/poll/verify
relay/poll/table_state: fault relay/record relay/poll/sweep relay/poll/selection relay/error relay/poll/outbox
relay/poll/batch_publisher: lsn relay/record relay/ledger relay/pipeline relay/retry/recurrence relay/postgres
    relay/metrics relay/publish relay/poll/error relay/poll/outlet relay/error relay/settings relay/retry/recovery
    relay/poll/source relay/poll/table_state
relay/poll: lsn relay/retry/stalls relay/poll/selection relay/poll/interval relay/postgres relay/metrics relay/publish
    relay/poll/error relay/poll/sql relay/error relay/settings relay/retry/recovery relay/poll/outbox
    relay/poll/verify relay/poll/source relay/poll/table_state relay/poll/batch_publisher
relay/setup: lsn fault relay/record relay/stream/resume relay/postgres relay/catalog relay/stream/position relay/error
    relay/settings relay/stream/catalog_watch relay/stream/examine relay/poll/outbox relay/poll/grants
    relay/poll/verify relay/poll
relay: relay/metrics relay/error relay/settings relay/stream/supervise relay/poll

# Level 3: they know everybody.
log: fault measure
metrics: measure relay/metrics relay
admin: lsn fault measure relay/metrics relay metrics
testing/broker: testing
testing/postgres: testing
testing/harness: event/encode event consumer/lanes consumer/retry consumer/verdict consumer/handler consumer/call
    consumer
testing: fault testing/broker testing/postgres testing/harness
config: fault secret units relay/record relay/postgres relay/publish relay log admin
cli: fault secret event relay/record relay/postgres relay/metrics relay/publish consumer/dead_letter relay/setup relay log
    metrics admin testing config
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
