//! A log that is written once and drained again and again, by each subject in turn.

use serde_json::json;
use walrelay_events::testing;
use walrelay_events::testing::Postgres;

use crate::PAYLOAD_BYTES;
use crate::kafka::Kafka;
use crate::line;
use crate::options::Options;
use crate::rounds::Spread;
use crate::rounds::interleave;
use crate::subjects;
use crate::subjects::Run;
use crate::subjects::Source;

/// Rows per transaction, and transactions.
const SHAPES: [(u32, u32); 3] = [(10, 100_000), (1, 300_000), (1_000_000, 1)];

struct Subject<'a> {
    name: &'static str,
    /// The bare program on the same sink, by its place.
    bare: Option<usize>,
    run: Box<dyn Fn() -> Run + 'a>,
}

pub(crate) fn compare(options: &Options, kafka: &Kafka) {
    for (rows, transactions) in SHAPES {
        let shape = if transactions == 1 { (options.scaled(rows), 1) } else { (rows, options.scaled(transactions)) };
        compare_shape(shape, options, kafka);
    }
}

fn compare_shape((rows, transactions): (u32, u32), options: &Options, kafka: &Kafka) {
    let settings = vec!["max_wal_size = 16GB".into(), "autovacuum = off".into()];
    let postgres = Postgres::start(testing::Options::default().with_settings(settings)).unwrap();
    let source = Source::fill(&postgres, rows, transactions, PAYLOAD_BYTES);
    let mock = subjects::Mock::start();
    let subjects = subjects(&source, &mock.bootstrap(), &kafka.bootstrap(), &options.against);
    let shape = format!("{rows} x {transactions}");
    let runs = interleave(options.rounds, subjects.len(), |at, round| {
        let run = (subjects[at].run)();
        line(&json!({
            "bench": "drain", "shape": shape, "subject": subjects[at].name, "round": round, "events": run.events,
            "seconds": run.seconds, "events_per_second": run.rate(), "cpu_seconds_per_million": run.cpu_per_million(),
            "peak_megabytes": run.peak_megabytes,
        }));
        run
    });
    eprintln!("\ndrain: {rows} rows a transaction, {transactions} transactions; {} rounds", options.rounds);
    eprintln!(
        "{:<18}{:>9}{:>12}{:>10}{:>9}{:>9}{:>6}",
        "", "events/s", "least-most", "of floor", "of bare", "CPU-s/M", "MB"
    );
    for (at, Subject { name, bare, .. }) in subjects.iter().enumerate() {
        tell(name, &runs[at], &runs[0], bare.map(|bare| runs[bare].as_slice()));
    }
}

fn subjects<'a>(
    source: &'a Source<'a>,
    mock: &str,
    kafka: &str,
    against: &[(&'static str, &'static str)],
) -> Vec<Subject<'a>> {
    let bare = |name, sink: &str| {
        let sink = sink.to_owned();
        Subject { name, bare: None, run: Box::new(move || source.bare(&sink)) }
    };
    let relay = |name, bare, program, sink: &str, outbox| {
        let sink = sink.to_owned();
        Subject { name, bare: Some(bare), run: Box::new(move || source.relay(program, &sink, outbox)) }
    };
    let mut subjects = vec![
        Subject { name: "pg_recvlogical", bare: None, run: Box::new(move || source.pg_recvlogical()) },
        bare("bare, mock", mock),
        relay("walrelay, mock", 1, subjects::WALRELAY, mock, ""),
        bare("bare, kafka", kafka),
        relay("walrelay, kafka", 3, subjects::WALRELAY, kafka, ""),
        relay("no headers, kafka", 3, subjects::WALRELAY, kafka, "headers = []\n"),
    ];
    subjects.extend(against.iter().map(|(name, program)| relay(name, 3, program, kafka, "")));
    subjects
}

fn tell(subject: &str, runs: &[Run], floor: &[Run], bare: Option<&[Run]>) {
    let rate = Spread::of(runs.iter().map(Run::rate));
    let cpu = Spread::of(runs.iter().map(Run::cpu_per_million));
    let megabytes = runs.iter().map(|run| run.peak_megabytes).max().unwrap_or_default();
    let of_bare = bare.map(|bare| Spread::of_ratios(runs, bare, Run::rate).percent()).unwrap_or_default();
    eprintln!(
        "{subject:<18}{:>9.0}{:>12}{:>10}{of_bare:>9}{:>9.2}{megabytes:>6}",
        rate.median,
        rate.ends(),
        Spread::of_ratios(runs, floor, Run::rate).percent(),
        cpu.median,
    );
}
