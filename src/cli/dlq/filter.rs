//! Which letters are meant.

use std::time::Duration;
use std::time::SystemTime;

use walrelay_events::consumer::dead_letter::Letter;
use walrelay_events::event;

/// Which letters are meant; all that is given must hold.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Filter {
    /// The dead-letter topic, such as order-events.dlq
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    /// The letter at this place of the topic
    #[arg(long, value_name = "PARTITION@OFFSET", value_parser = place)]
    pub(super) at: Option<(i32, i64)>,
    /// Letters with this event id
    #[arg(long, value_name = "UUID")]
    pub(super) id: Option<String>,
    /// Letters of this event type
    #[arg(long, value_name = "TYPE")]
    pub(super) event_type: Option<String>,
    /// Letters with this key
    #[arg(long)]
    pub(super) key: Option<String>,
    /// Letters whose reason contains this text
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Letters written since then: 2026-11-24T12:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) since: Option<Moment>,
    /// Letters written until then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) until: Option<Moment>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    /// Also letters that were redriven already
    #[arg(long)]
    pub(super) all: bool,
}

/// Milliseconds of the Unix clock.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::cli) struct Moment(i64);

impl Filter {
    /// Says whether a letter is meant.
    pub(super) fn wants(&self, letter: &Letter) -> bool {
        let record = &letter.record;
        let provenance = letter.provenance.as_ref();
        let reason = provenance.map_or("", |provenance| &provenance.reason);
        let written =
            Moment(provenance.map_or_else(|| record.timestamp().millis().unwrap_or_default(), |it| it.at_millis));
        let header_is = |name, wanted: &Option<String>| {
            wanted.as_deref().is_none_or(|wanted| record.header(name).is_some_and(|found| found == wanted))
        };
        (self.all || !letter.is_redriven)
            && self.at.is_none_or(|wanted| wanted == (record.partition(), record.offset()))
            && header_is(event::EVENT_ID, &self.id)
            && header_is(event::EVENT_TYPE, &self.event_type)
            && self.key.as_deref().is_none_or(|key| record.key() == Some(key.as_bytes()))
            && self.reason.as_deref().is_none_or(|wanted| reason.contains(wanted))
            && self.since.is_none_or(|since| since <= written)
            && self.until.is_none_or(|until| written <= until)
    }

    /// Says whether a letter is to be brought back. One that is there twice is one event: its first goes, unless the other one
    /// is asked for by its place.
    pub(super) fn wants_back(&self, letter: &Letter) -> bool {
        self.wants(letter) && (!letter.is_repeated || self.at.is_some())
    }
}

fn place(text: &str) -> Result<(i32, i64), String> {
    let parts = text.split_once('@');
    let read = parts.and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    read.ok_or_else(|| "expected a partition and an offset such as 0@17".to_owned())
}

/// Reads a time, or how long ago.
fn moment(text: &str) -> Result<Moment, String> {
    let ago = |ago: Duration| SystemTime::now().checked_sub(ago);
    let time = humantime::parse_rfc3339_weak(text).ok().or_else(|| ago(humantime::parse_duration(text).ok()?));
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let millis = since.and_then(|since| i64::try_from(since.as_millis()).ok());
    millis.map(Moment).ok_or_else(|| "expected a time such as 2026-11-24T12:00:00Z or a duration such as 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    use walrelay_events::consumer::Record;
    use walrelay_events::consumer::dead_letter::Provenance;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    fn letter(is_redriven: bool) -> Letter {
        let record = Record::new(
            "t.dlq",
            2,
            17,
            Some(b"o-1"),
            None,
            &[(event::EVENT_ID, Some(b"e")), (event::EVENT_TYPE, Some(b"T"))],
        );
        let mut provenance = Provenance::of(&record, "g", "no such street", 1);
        provenance.at_millis = 1_000;
        Letter { record, provenance: Some(provenance), is_redriven, is_repeated: false }
    }

    #[test]
    fn a_letter_is_wanted_if_all_that_is_given_holds() {
        let check = |arguments: &str, is_redriven: bool, expected: bool| {
            let line = Line::try_parse_from(format!("dlq t.dlq {arguments}").split_whitespace()).unwrap();
            assert_eq!(line.filter.wants(&letter(is_redriven)), expected, "{arguments} {is_redriven}");
        };
        check("", false, true);
        check("", true, false);
        check("--all", true, true);
        check("--at 2@17 --id e --event-type T --key o-1 --reason street", false, true);
        for wrong in ["--at 2@18", "--at 1@17", "--id f", "--event-type U", "--key o", "--reason road"] {
            check(wrong, false, false);
        }
        check("--since 1970-01-01T00:00:01Z --until 1970-01-01T00:00:01Z", false, true);
        check("--since 1970-01-01T00:00:02Z", false, false);
        check("--until 1970-01-01T00:00:00Z", false, false);
        check("--since 2h", false, false);
    }

    #[test]
    fn a_time_is_a_moment_or_how_long_ago() {
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(Moment(1_000)));
        assert!(moment("2h").unwrap() < moment("1h").unwrap());
        for wrong in ["yesterday", "", "-1h"] {
            assert!(moment(wrong).unwrap_err().contains("such as 2h"), "{wrong}");
        }
        assert!(place("17").unwrap_err().contains("0@17"));
    }
}
