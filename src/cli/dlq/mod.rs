//! `walrelay dlq`: what was rejected, and the way back.
//!
//! `list` and `show` only read. `redrive` brings letters back to the topics they came from, byte for byte and one after another,
//! and notes in the dead-letter topic which ones, so that they are not brought back twice unless asked for. Letters are visited
//! partition by partition, oldest first, up to where the topic ended when the verb began.

mod filter;
mod show;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::process::ExitCode;

use rdkafka::error::KafkaError;

use crate::config::Loaded;
use crate::relay;
use crate::relay::publish;
use walrelay_events::consumer::dead_letter;
use walrelay_events::consumer::dead_letter::Letter;
use walrelay_events::consumer::dead_letter::Producer;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

use super::args::DlqVerb;
use super::args::Format;
use super::output::Output;
use super::report::Failed;

pub(super) use filter::Filter;

/// A dead-letter topic cannot be read, or a letter not be brought back.
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
    #[error("the letter {0} does not say which topic it came from")]
    NoOrigin(String),
    #[error("the letter {0} has a header whose name is not UTF-8: it cannot be brought back byte for byte")]
    Unreadable(String),
    #[error("no letter in {0} is what was asked for")]
    NoLetter(String),
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Options(error) => error.code(),
            Self::Kafka { .. } => Code::new(Exit::Unavailable, 80),
            Self::NoOrigin(_) => Code::new(Exit::CheckFailed, 80),
            Self::NoLetter(_) => Code::new(Exit::CheckFailed, 81),
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
                "check [kafka] in the configuration, the name of the topic, and the rights Read and Write on it"
            }
            Self::NoOrigin(_) => "say where it goes with --to TOPIC",
            Self::Unreadable(_) => "leave it out with the filters of `walrelay dlq redrive`, and mend it by hand",
            Self::NoLetter(_) => "`walrelay dlq list TOPIC --all` shows every letter",
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
            let count = visit(filter, Filter::wants, &properties, |letter| {
                output.line(&match format {
                    Format::Human => show::line(letter),
                    Format::Json => show::object(letter).to_string(),
                })?;
                Ok(())
            })?;
            let kind = if filter.all { "" } else { ", not counting what was redriven" };
            output.note(&format!("{} in {topic}{kind}", letters(count)));
        }
        DlqVerb::Show { filter, format } => {
            let count = visit(filter, Filter::wants, &properties, |letter| {
                output.text(&match format {
                    Format::Human => show::block(letter),
                    Format::Json => format!("{}\n", show::whole(letter)),
                })?;
                Ok(())
            })?;
            if count == 0 {
                return Err(Failed::new(Error::NoLetter(topic.clone())));
            }
        }
        DlqVerb::Redrive { filter, to, dry_run: true } => {
            let count = visit(filter, Filter::wants_back, &properties, |letter| {
                output.line(&format!("{} would go to {}", letter.record, target(letter, to.as_deref())?))?;
                Ok(())
            })?;
            output.note(&format!("{} would be redriven; nothing was written", letters(count)));
        }
        DlqVerb::Redrive { filter, to, dry_run: false } => redrive(filter, to.as_deref(), &properties, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Each letter is told only after a broker has it, so that what is told is true even if the next one fails.
fn redrive(
    filter: &Filter,
    to: Option<&str>,
    properties: &BTreeMap<String, String>,
    output: &mut Output,
) -> Result<(), Failed> {
    let producer = Producer::new(properties).map_err(Error::kafka("make a producer"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::new(Error::Runtime(error)))?;
    let mut done = 0;
    let visited = visit(filter, Filter::wants_back, properties, |letter| {
        let topic = target(letter, to)?;
        let redriven = runtime.block_on(producer.redrive(letter, topic));
        redriven.map_err(Error::kafka(format!("bring {} back to {topic}", letter.record)))?;
        done += 1;
        output.line(&format!("{} went to {topic}", letter.record))?;
        Ok(())
    });
    output.note(&format!("{} redriven", letters(done)));
    visited.map(drop)
}

fn target<'a>(letter: &'a Letter, to: Option<&'a str>) -> Result<&'a str, Failed> {
    if letter.record.has_unreadable_headers() {
        return Err(Failed::new(Error::Unreadable(letter.record.to_string())));
    }
    let origin = letter.provenance.as_ref().map(|provenance| provenance.topic.as_str());
    to.or(origin).ok_or_else(|| Failed::new(Error::NoOrigin(letter.record.to_string())))
}

/// Visits the letters that the filter wants, in this sense, until a visit fails; gives how many there were.
fn visit(
    filter: &Filter,
    wants: impl Fn(&Filter, &Letter) -> bool,
    properties: &BTreeMap<String, String>,
    mut visit: impl FnMut(&Letter) -> Result<(), Failed>,
) -> Result<u64, Failed> {
    let mut count = 0;
    let mut ended = Ok(());
    let read = dead_letter::read(properties, &filter.topic, &mut |letter| {
        if wants(filter, &letter) {
            ended = visit(&letter);
            count += 1;
        }
        let is_over = ended.is_err() || filter.limit.is_some_and(|limit| count >= limit);
        if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    read.map_err(Error::kafka(format!("read {}", filter.topic)))?;
    ended.map(|()| count)
}

/// Gives librdkafka's properties as `[kafka]` has them.
fn properties(loaded: &Loaded) -> Result<BTreeMap<String, String>, Error> {
    let relay::Settings { kafka, relay, delivery, .. } = loaded.config.relay_settings();
    let settings = publish::Settings::new(kafka, format!("{} dlq", relay.name), delivery.max_in_flight_bytes);
    Ok(settings.connection()?)
}

fn letters(count: u64) -> String {
    if count == 1 { "1 letter".to_owned() } else { format!("{count} letters") }
}
