//! `walrelay dlq redrive`.
//!
//! A record that cannot be redriven is reported, and the next ones follow. Later records of its key are held back, so
//! that the order of a key holds. An error that concerns every record ends the run. Each record is printed when it is
//! redriven and marked: the output is right however the run ends.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::io;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use walrelay_events::consumer::dead_letter::DeadLetter;
use walrelay_events::consumer::dead_letter::DeadLetterTopic;
use walrelay_events::consumer::dead_letter::Interrupted;
use walrelay_events::consumer::dead_letter::Producer;
use walrelay_events::consumer::dead_letter::Redrive;
use walrelay_events::consumer::dead_letter::Repeats;
use walrelay_events::consumer::dead_letter::WriteError;

use crate::cli::output::Output;
use crate::cli::report::Failed;
use crate::cli::signals::INTERRUPTED;

use super::error::Error;
use super::filter::Filter;
use super::visit::counted;
use super::visit::visit;

/// A long run reports how far it is at this interval.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// A run ends after this many records that cannot be redriven.
const MAX_REFUSED: u64 = 1_000;
/// The interval at which a pause checks for a stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// What to redrive, where to, and how fast.
pub(super) struct Options<'o> {
    pub(super) filter: &'o Filter,
    pub(super) to: Option<&'o str>,
    pub(super) rate: Option<u32>,
    pub(super) stop: &'o CancellationToken,
}

/// Prints what a run would write.
pub(super) fn dry_run(
    options: &Options<'_>,
    topic: &mut DeadLetterTopic<'_>,
    output: &mut Output,
) -> Result<ExitCode, Failed> {
    report(&examine(topic)?, topic.name(), output);
    let mut events = Repeats::default();
    let (mut count, mut refused_with) = (0, None);
    visit(options.filter, topic, |dead_letter| {
        match target(dead_letter, options.to) {
            Ok(_) if events.contains(dead_letter) => {}
            Ok(target) => {
                output.line(&format!("{} would be redriven to {target}", dead_letter.record))?;
                events.note(dead_letter);
                count += 1;
            }
            Err(error) => _ = refused_with.get_or_insert(Failed::new(error).report(output)),
        }
        Ok(())
    })?;
    output.note(&format!("{} would be redriven; nothing was written", counted(count)));
    Ok(refused_with.unwrap_or(ExitCode::SUCCESS))
}

fn examine(topic: &mut DeadLetterTopic<'_>) -> Result<Interrupted, Failed> {
    topic.examine_open_runs().map_err(Error::kafka("cannot find out what an interrupted redrive delivered"))
}

/// Redrives the records that match.
pub(super) fn redrive(
    options: &Options<'_>,
    topic: &mut DeadLetterTopic<'_>,
    properties: &BTreeMap<String, String>,
    output: &mut Output,
) -> Result<ExitCode, Failed> {
    let producer = Producer::new(properties).map_err(Error::kafka("cannot create a producer"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::new(Error::Runtime(error)))?;
    let redrive = Redrive::new(&producer, topic.name());
    let interrupted = examine(topic)?;
    report(&interrupted, topic.name(), output);
    let completed = runtime.block_on(redrive.complete(&interrupted.delivered, &interrupted.runs));
    completed.map_err(Error::write(format!("cannot write to {}", topic.name())))?;
    let mut run = Run::new(options, redrive, runtime, output);
    let read = topic.visit(&mut |dead_letter| run.visit(&dead_letter));
    let read = read.map_err(Error::kafka(format!("cannot read {}", topic.name())));
    run.end(read)
}

/// A run in progress.
struct Run<'o, 'p> {
    options: &'o Options<'o>,
    redrive: Redrive<'p>,
    runtime: Runtime,
    output: &'o mut Output,
    /// The events that were redriven.
    events: Repeats,
    hasher: RandomState,
    /// The keys of records that could not be redriven, as hashes, with their topics.
    held: HashSet<u64>,
    redriven: u64,
    refused: u64,
    /// The exit code of the first record that could not be redriven.
    refused_with: Option<ExitCode>,
    started: Instant,
    reported: Instant,
    /// Why the run ends early.
    ended: Option<Failed>,
    /// Standard output cannot be written to. The run continues.
    output_error: Option<io::Error>,
}

impl<'o, 'p> Run<'o, 'p> {
    fn new(options: &'o Options<'o>, redrive: Redrive<'p>, runtime: Runtime, output: &'o mut Output) -> Self {
        let now = Instant::now();
        Self {
            options,
            redrive,
            runtime,
            output,
            events: Repeats::default(),
            hasher: RandomState::new(),
            held: HashSet::new(),
            redriven: 0,
            refused: 0,
            refused_with: None,
            started: now,
            reported: now,
            ended: None,
            output_error: None,
        }
    }

    fn visit(&mut self, dead_letter: &DeadLetter) -> ControlFlow<()> {
        self.report_progress(dead_letter);
        if self.options.filter.matches(dead_letter) {
            self.wait();
        }
        if self.options.stop.is_cancelled() {
            return ControlFlow::Break(());
        }
        if !self.options.filter.matches(dead_letter) {
            return ControlFlow::Continue(());
        }
        match self.redrive(dead_letter) {
            Ok(()) => {}
            Err(error @ (Error::Kafka { .. } | Error::Write { .. } | Error::Options(_) | Error::Runtime(_))) => {
                self.ended = Some(Failed::new(error));
            }
            Err(error) => self.refuse(dead_letter, error),
        }
        let is_full = self.options.filter.limit.is_some_and(|limit| self.redriven + self.refused >= limit);
        if is_full || self.ended.is_some() || self.refused >= MAX_REFUSED {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn redrive(&mut self, dead_letter: &DeadLetter) -> Result<(), Error> {
        let record = &dead_letter.record;
        let topic = target(dead_letter, self.options.to)?;
        if self.held.contains(&self.hash(dead_letter)) && self.options.filter.at.is_none() {
            return Err(Error::Held(record.to_string()));
        }
        if self.events.contains(dead_letter) {
            let marked = self.runtime.block_on(self.redrive.mark(record));
            marked.map_err(|source| Error::Write { action: format!("cannot mark {record}"), source })?;
            self.output.note(&format!("{record} was covered: an earlier record of the same event was redriven"));
            return Ok(());
        }
        match self.runtime.block_on(self.redrive.redrive(dead_letter, topic)) {
            Ok(()) => {}
            Err(source @ WriteError::Failed { .. }) => {
                return Err(Error::Write { action: format!("cannot redrive {record} to {topic}"), source });
            }
            Err(source) => return Err(Error::Refused { record: record.to_string(), source }),
        }
        self.redriven += 1;
        self.events.note(dead_letter);
        if let Err(error) = self.output.line(&format!("{record} redriven to {topic}")) {
            self.output_error.get_or_insert(error);
        }
        Ok(())
    }

    /// Reports a record that cannot be redriven, and holds back later records of its key.
    fn refuse(&mut self, dead_letter: &DeadLetter, error: Error) {
        self.refused += 1;
        if dead_letter.record.key().is_some() {
            self.held.insert(self.hash(dead_letter));
        }
        let code = Failed::new(error).report(self.output);
        self.refused_with.get_or_insert(code);
    }

    fn hash(&self, dead_letter: &DeadLetter) -> u64 {
        let origin = dead_letter.provenance.as_ref().map(|origin| origin.topic.as_str());
        self.hasher.hash_one((self.options.to.or(origin), dead_letter.record.key()))
    }

    /// Waits until the rate allows another record.
    fn wait(&self) {
        let Some(rate) = self.options.rate else { return };
        let due = self.started + Duration::from_secs_f64((self.redriven + self.refused) as f64 / f64::from(rate));
        while !self.options.stop.is_cancelled() {
            let remaining = due.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return;
            }
            thread::sleep(remaining.min(STOP_CHECK));
        }
    }

    fn report_progress(&mut self, dead_letter: &DeadLetter) {
        if self.reported.elapsed() >= PROGRESS_INTERVAL {
            self.reported = Instant::now();
            self.output.note(&format!("{} redriven so far, now at {}", counted(self.redriven), dead_letter.record));
        }
    }

    /// Notes the end of the run, and reports what it did.
    fn end(self, read: Result<(), Failed>) -> Result<ExitCode, Failed> {
        let not = if self.refused > 0 { format!(", {} not", self.refused) } else { String::new() };
        self.output.note(&format!("{} redriven{not}", counted(self.redriven)));
        if self.refused >= MAX_REFUSED {
            self.output.note(&format!("ended after {MAX_REFUSED} records that cannot be redriven"));
        }
        // After an error the last record may have been delivered: the next run finds that out.
        if let Some(failed) = self.ended {
            return Err(failed);
        }
        let ended = self.runtime.block_on(self.redrive.end());
        read?;
        ended.map_err(Error::write("cannot note the end of the redrive"))?;
        match (self.output_error, self.refused_with) {
            (_, Some(code)) => Ok(code),
            _ if self.options.stop.is_cancelled() => Ok(ExitCode::from(INTERRUPTED)),
            (Some(error), None) => Err(Failed::Output(error)),
            (None, None) => Ok(ExitCode::SUCCESS),
        }
    }
}

/// Reports what runs that did not end had delivered.
fn report(interrupted: &Interrupted, topic: &str, output: &mut Output) {
    for (partition, offset) in &interrupted.delivered {
        output.note(&format!("{topic}[{partition}]@{offset} was delivered by a redrive that was interrupted"));
    }
    for (topic, why) in &interrupted.unknown {
        output.note(&format!(
            "warning: cannot find out what an interrupted redrive delivered to {topic}, its last records may be \
             repeated: {why}"
        ));
    }
}

/// Returns the topic to redrive a record to.
fn target<'a>(dead_letter: &'a DeadLetter, to: Option<&'a str>) -> Result<&'a str, Error> {
    let record = &dead_letter.record;
    let origin = dead_letter.provenance.as_ref().map(|provenance| provenance.topic.as_str());
    let topic = to.or(origin).ok_or_else(|| Error::NoOrigin(record.to_string()))?;
    if topic == record.topic() {
        return Err(Error::SameTopic(topic.to_owned()));
    }
    // It may come from a header.
    if !is_topic_name(topic) {
        return Err(Error::NoTopic { record: record.to_string(), topic: topic.to_owned() });
    }
    Ok(topic)
}

/// Kafka's rule, without Kafka's own topics.
fn is_topic_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len())
        && name.bytes().all(is_allowed)
        && name != "."
        && name != ".."
        && !name.starts_with("__")
}
