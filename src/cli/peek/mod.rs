//! `walrelay peek`: the events that are not published yet, as the records that they will be.
//!
//! Nothing is consumed: the slot and the rows stay as they are. Data goes to standard output, one object per event with
//! `-o json`, so that a program can compare it with what Kafka has.

mod show;

use std::process::ExitCode;
use std::time::Duration;

use crate::config::Loaded;
use crate::relay;
use crate::relay::Mode;
use crate::relay::peek;
use crate::relay::peek::Peeked;

use super::output::Format;
use super::output::Output;
use super::report::Failed;

/// How many events are shown, and how long the server may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeekOptions {
    pub(super) limit: u32,
    pub(super) timeout: Duration,
    pub(super) format: Format,
}

pub(super) fn peek(loaded: &Loaded, options: PeekOptions, output: &mut Output) -> Result<ExitCode, Failed> {
    let settings = loaded.config.relay_settings();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(relay::Error::Thread);
    let runtime = runtime.map_err(Failed::new)?;
    let max_events = usize::try_from(options.limit).unwrap_or(usize::MAX);
    let peeked = runtime.block_on(Box::pin(peek::peek(&settings, max_events, options.timeout)));
    let Peeked { events, has_more } = peeked.map_err(Failed::new)?;
    for event in &events {
        output.text(&match options.format {
            Format::Human => show::block(event),
            Format::Json => format!("{}\n", show::object(event)),
        })?;
    }
    let place = match settings.source.mode {
        Mode::Wal => format!("behind slot {}", settings.source.slot),
        Mode::Poll => "in the outbox".to_owned(),
    };
    output.note(&summary(events.len(), has_more, &place));
    Ok(ExitCode::SUCCESS)
}

fn summary(count: usize, has_more: bool, place: &str) -> String {
    let events = if count == 1 { "event" } else { "events" };
    match (count, has_more) {
        (0, _) => format!("no event is pending {place}"),
        (count, false) => format!("{count} {events} pending {place}"),
        (1, true) => format!("the first event pending {place}; more follow (--limit)"),
        (count, true) => format!("the first {count} {events} pending {place}; more follow (--limit)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_whether_there_is_more() {
        assert_eq!(summary(0, false, "behind slot s"), "no event is pending behind slot s");
        assert_eq!(summary(1, true, "in the outbox"), "the first event pending in the outbox; more follow (--limit)");
        assert_eq!(summary(1, false, "behind slot s"), "1 event pending behind slot s");
        assert_eq!(
            summary(9, true, "in the outbox"),
            "the first 9 events pending in the outbox; more follow (--limit)"
        );
    }
}
