//! `walrelay dlq`: lists, shows and redrives dead-letter records.
//!
//! `list` and `show` only read. `redrive` writes records to the topics that they came from, byte for byte and one after
//! another, and marks them as redriven in the dead-letter topic, so that they are not redriven again by default.
//! Records are visited partition by partition, in the order of their offsets, up to the end of the topic when the verb
//! started.

mod filter;
mod show;
mod verb;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::process::ExitCode;

use crate::config::Loaded;
use crate::relay;
use crate::relay::publish;
use walrelay_events::KafkaError;
use walrelay_events::consumer::dead_letter;
use walrelay_events::consumer::dead_letter::DeadLetter;
use walrelay_events::consumer::dead_letter::Producer;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

use super::output::Format;
use super::output::Output;
use super::report::Failed;

use filter::Filter;
pub(super) use verb::DlqVerb;

/// A dead-letter topic cannot be read, or a record cannot be redriven.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Options(#[from] publish::Error),
    #[error("{action}")]
    Kafka {
        action: String,
        #[source]
        source: KafkaError,
    },
    #[error("cannot redrive {0}: its headers do not name the original topic")]
    NoOrigin(String),
    #[error("cannot redrive {0} byte for byte: the name of a header is not UTF-8")]
    Unreadable(String),
    #[error("no dead-letter record in {0} matches")]
    NoMatch(String),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Options(error) => error.code(),
            Self::Kafka { .. } => Code::new(Exit::Unavailable, 80),
            Self::NoOrigin(_) => Code::new(Exit::CheckFailed, 80),
            Self::NoMatch(_) => Code::new(Exit::CheckFailed, 81),
            Self::Unreadable(_) => Code::new(Exit::CheckFailed, 82),
            Self::Runtime(_) => Code::new(Exit::Internal, 80),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::Options(error) => return error.help(),
            Self::Kafka { .. } => {
                "check [kafka] in the configuration, the name of the topic, and the permissions Read and Write on it"
            }
            Self::NoOrigin(_) => "set the topic with --to TOPIC",
            Self::Unreadable(_) => {
                "exclude it with the options of `walrelay dlq redrive`, and write the event again at its producer"
            }
            Self::NoMatch(_) => "`walrelay dlq list TOPIC --all` lists every dead-letter record",
            Self::Runtime(_) => return None,
        };
        Some(help.to_owned())
    }
}

impl Error {
    fn kafka(action: impl Into<String>) -> impl FnOnce(KafkaError) -> Failed {
        move |source| Failed::new(Self::Kafka { action: action.into(), source })
    }
}

pub(super) fn dlq(verb: DlqVerb, loaded: &Loaded, output: &mut Output) -> Result<ExitCode, Failed> {
    let properties = properties(loaded).map_err(Failed::new)?;
    let topic = match &verb {
        DlqVerb::List { filter, .. } | DlqVerb::Show { filter, .. } | DlqVerb::Redrive { filter, .. } => &filter.topic,
    };
    match &verb {
        DlqVerb::List { filter, format } => {
            let count = visit(filter, Filter::matches, &properties, |dead_letter| {
                output.line(&match format {
                    Format::Human => show::line(dead_letter),
                    Format::Json => show::object(dead_letter).to_string(),
                })?;
                Ok(())
            })?;
            let kind = if filter.all { "" } else { ", without redriven ones" };
            output.note(&format!("{} in {topic}{kind}", counted(count)));
        }
        DlqVerb::Show { filter, format } => {
            let count = visit(filter, Filter::matches, &properties, |dead_letter| {
                output.text(&match format {
                    Format::Human => show::block(dead_letter),
                    Format::Json => format!("{}\n", show::whole(dead_letter)),
                })?;
                Ok(())
            })?;
            if count == 0 {
                return Err(Failed::new(Error::NoMatch(topic.clone())));
            }
        }
        DlqVerb::Redrive { filter, to, dry_run: true } => {
            let count = visit(filter, Filter::matches_redrive, &properties, |dead_letter| {
                output.line(&format!(
                    "{} would be redriven to {}",
                    dead_letter.record,
                    target(dead_letter, to.as_deref())?
                ))?;
                Ok(())
            })?;
            output.note(&format!("{} would be redriven; nothing was written", counted(count)));
        }
        DlqVerb::Redrive { filter, to, dry_run: false } => redrive(filter, to.as_deref(), &properties, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Each record is printed after its delivery report: the output is right even if the next record fails.
fn redrive(
    filter: &Filter,
    to: Option<&str>,
    properties: &BTreeMap<String, String>,
    output: &mut Output,
) -> Result<(), Failed> {
    let producer = Producer::new(properties).map_err(Error::kafka("cannot create a producer"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::new(Error::Runtime(error)))?;
    let mut done = 0;
    let visited = visit(filter, Filter::matches_redrive, properties, |dead_letter| {
        let topic = target(dead_letter, to)?;
        let redriven = runtime.block_on(producer.redrive(dead_letter, topic));
        redriven.map_err(Error::kafka(format!("cannot redrive {} to {topic}", dead_letter.record)))?;
        done += 1;
        output.line(&format!("{} redriven to {topic}", dead_letter.record))?;
        Ok(())
    });
    output.note(&format!("{} redriven", counted(done)));
    visited.map(drop)
}

fn target<'a>(dead_letter: &'a DeadLetter, to: Option<&'a str>) -> Result<&'a str, Failed> {
    if dead_letter.record.has_unreadable_headers() {
        return Err(Failed::new(Error::Unreadable(dead_letter.record.to_string())));
    }
    let origin = dead_letter.provenance.as_ref().map(|provenance| provenance.topic.as_str());
    to.or(origin).ok_or_else(|| Failed::new(Error::NoOrigin(dead_letter.record.to_string())))
}

/// Visits the records that match, until a visit fails. Returns how many were visited.
fn visit(
    filter: &Filter,
    matches: impl Fn(&Filter, &DeadLetter) -> bool,
    properties: &BTreeMap<String, String>,
    mut visit: impl FnMut(&DeadLetter) -> Result<(), Failed>,
) -> Result<u64, Failed> {
    let mut count = 0;
    let mut ended = Ok(());
    let read = dead_letter::read(properties, &filter.topic, &mut |dead_letter| {
        if matches(filter, &dead_letter) {
            ended = visit(&dead_letter);
            count += 1;
        }
        let is_over = ended.is_err() || filter.limit.is_some_and(|limit| count >= limit);
        if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    read.map_err(Error::kafka(format!("cannot read {}", filter.topic)))?;
    ended.map(|()| count)
}

/// Returns librdkafka's properties of `[kafka]`.
fn properties(loaded: &Loaded) -> Result<BTreeMap<String, String>, Error> {
    let relay::Settings { kafka, relay, delivery, .. } = loaded.config.relay_settings();
    let settings = publish::Settings::new(kafka, format!("{} dlq", relay.name), delivery.max_in_flight_bytes);
    Ok(settings.connection()?)
}

fn counted(count: u64) -> String {
    if count == 1 { "1 dead-letter record".to_owned() } else { format!("{count} dead-letter records") }
}
