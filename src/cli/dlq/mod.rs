//! `walrelay dlq`: lists, shows and redrives dead-letter records.
//!
//! `list` and `show` only read. `redrive` writes records to the topics that they came from, byte for byte and one after
//! another, and marks them as redriven in the dead-letter topic, so that they are not redriven again by default.
//! Records are visited partition by partition, in the order of their offsets, up to the end of the topic when the verb
//! started.

mod error;
mod filter;
mod redrive;
mod show;
mod verb;
mod visit;

use std::collections::BTreeMap;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use crate::config::Loaded;
use crate::relay;
use crate::relay::publish;
use walrelay_events::consumer::dead_letter::DeadLetterTopic;

use super::output::Format;
use super::output::Output;
use super::report::Failed;

use error::Error;
pub(super) use filter::Millis;
pub(super) use filter::time;
use redrive::Options;
pub(super) use verb::DlqVerb;
use visit::counted;
use visit::visit;

pub(super) fn dlq(
    verb: DlqVerb,
    loaded: &Loaded,
    stop: &CancellationToken,
    output: &mut Output,
) -> Result<ExitCode, Failed> {
    let properties = properties(loaded).map_err(Failed::new)?;
    match &verb {
        DlqVerb::List { filter, format } => {
            let topic = open(&properties, &filter.topic)?;
            let count = visit(filter, &topic, |dead_letter| {
                output.line(&match format {
                    Format::Human => show::line(dead_letter),
                    Format::Json => show::object(dead_letter).to_string(),
                })?;
                Ok(())
            })?;
            let kind = if filter.all { "" } else { ", without redriven ones" };
            output.note(&format!("{} in {}{kind}", counted(count), topic.name()));
            if topic.has_open_runs() {
                output.note(
                    "a redrive is running or was interrupted: it may have delivered records that are listed as not \
                     redriven; the next redrive checks that first",
                );
            }
        }
        DlqVerb::Show { filter, format } => {
            let count = visit(filter, &open(&properties, &filter.topic)?, |dead_letter| {
                output.text(&match format {
                    Format::Human => show::block(dead_letter),
                    Format::Json => format!("{}\n", show::whole(dead_letter)),
                })?;
                Ok(())
            })?;
            if count == 0 {
                return Err(Failed::new(Error::NoMatch(filter.topic.clone())));
            }
        }
        DlqVerb::Redrive { filter, to, rate, dry_run } => {
            if to.as_ref() == Some(&filter.topic) {
                return Err(Failed::new(Error::SameTopic(filter.topic.clone())));
            }
            let options = Options { filter, to: to.as_deref(), rate: *rate, stop };
            let mut topic = open(&properties, &filter.topic)?;
            if *dry_run {
                return redrive::dry_run(&options, &mut topic, output);
            }
            return redrive::redrive(&options, &mut topic, &properties, output);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open<'p>(properties: &'p BTreeMap<String, String>, topic: &str) -> Result<DeadLetterTopic<'p>, Failed> {
    DeadLetterTopic::open(properties, topic).map_err(Error::kafka(format!("cannot read {topic}")))
}

/// Returns librdkafka's properties of `[kafka]`.
fn properties(loaded: &Loaded) -> Result<BTreeMap<String, String>, Error> {
    let relay::Settings { kafka, relay, delivery, .. } = loaded.config.relay_settings();
    let settings = publish::Settings::new(kafka, format!("{} dlq", relay.name), delivery.max_in_flight_bytes);
    Ok(settings.connection()?)
}
