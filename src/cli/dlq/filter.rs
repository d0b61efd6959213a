//! Selects dead-letter records.

use std::time::Duration;
use std::time::SystemTime;

use walrelay_events::consumer::dead_letter::DeadLetter;
use walrelay_events::event;

/// Selects dead-letter records. A record must match every option that is given.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Filter {
    /// The dead-letter topic, such as order-events.dlq
    #[arg(value_name = "TOPIC")]
    pub(super) topic: String,
    /// Only the record at this partition and offset of the topic
    #[arg(long, value_name = "PARTITION@OFFSET", value_parser = location)]
    pub(super) at: Option<(i32, i64)>,
    /// Only records with this event id
    #[arg(long, value_name = "UUID")]
    pub(super) id: Option<String>,
    /// Only records of this event type
    #[arg(long, value_name = "TYPE")]
    pub(super) event_type: Option<String>,
    /// Only records with this key
    #[arg(long)]
    pub(super) key: Option<String>,
    /// Only records of this consumer group
    #[arg(long)]
    pub(super) group: Option<String>,
    /// Only records whose reason contains this text
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Only records written since this time: 2026-11-24T12:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<Millis>,
    /// Only records written until this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<Millis>,
    /// At most this many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    /// Include records that were redriven already
    #[arg(long)]
    pub(super) all: bool,
}

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::cli) struct Millis(i64);

impl Millis {
    pub(in crate::cli) const fn millis(self) -> i64 {
        self.0
    }
}

impl Filter {
    /// Returns whether a record matches.
    pub(super) fn matches(&self, dead_letter: &DeadLetter) -> bool {
        let record = &dead_letter.record;
        let provenance = dead_letter.provenance.as_ref();
        let reason = provenance.map_or("", |provenance| &provenance.reason);
        let written =
            Millis(provenance.map_or_else(|| record.timestamp().millis().unwrap_or_default(), |it| it.at_millis));
        let header_is = |name, wanted: &Option<String>| {
            wanted.as_deref().is_none_or(|wanted| record.header(name).is_some_and(|found| found == wanted))
        };
        (self.all || !dead_letter.is_redriven)
            && self.at.is_none_or(|wanted| wanted == (record.partition(), record.offset()))
            && header_is(event::EVENT_ID, &self.id)
            && header_is(event::EVENT_TYPE, &self.event_type)
            && self.key.as_deref().is_none_or(|key| record.key() == Some(key.as_bytes()))
            && self.group.as_deref().is_none_or(|wanted| provenance.is_some_and(|found| found.group == wanted))
            && self.reason.as_deref().is_none_or(|wanted| reason.contains(wanted))
            && self.since.is_none_or(|since| since <= written)
            && self.until.is_none_or(|until| written <= until)
    }
}

fn location(text: &str) -> Result<(i32, i64), String> {
    let parts = text.split_once('@');
    let read = parts.and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    read.ok_or_else(|| "expected a partition and an offset, for example 0@17".to_owned())
}

/// Parses a time, or a duration before now.
pub(in crate::cli) fn time(text: &str) -> Result<Millis, String> {
    let ago = |ago: Duration| SystemTime::now().checked_sub(ago);
    let time = humantime::parse_rfc3339_weak(text).ok().or_else(|| ago(humantime::parse_duration(text).ok()?));
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let millis = since.and_then(|since| i64::try_from(since.as_millis()).ok());
    millis.map(Millis).ok_or_else(|| "expected a time (2026-11-24T12:00:00Z) or a duration (2h)".to_owned())
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

    fn dead_letter(is_redriven: bool) -> DeadLetter {
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
        let mut dead_letter = DeadLetter::new(record);
        dead_letter.provenance = Some(provenance);
        dead_letter.is_redriven = is_redriven;
        dead_letter
    }

    #[test]
    fn a_record_must_match_every_option_that_is_given() {
        let check = |arguments: &str, is_redriven: bool, expected: bool| {
            let line = Line::try_parse_from(format!("dlq t.dlq {arguments}").split_whitespace()).unwrap();
            assert_eq!(line.filter.matches(&dead_letter(is_redriven)), expected, "{arguments} {is_redriven}");
        };
        check("", false, true);
        check("", true, false);
        check("--all", true, true);
        check("--at 2@17 --id e --event-type T --key o-1 --group g --reason street", false, true);
        for wrong in ["--at 2@18", "--at 1@17", "--id f", "--event-type U", "--key o", "--group h", "--reason road"] {
            check(wrong, false, false);
        }
        check("--since 1970-01-01T00:00:01Z --until 1970-01-01T00:00:01Z", false, true);
        check("--since 1970-01-01T00:00:02Z", false, false);
        check("--until 1970-01-01T00:00:00Z", false, false);
        check("--since 2h", false, false);
    }

    #[test]
    fn a_time_is_absolute_or_a_duration_before_now() {
        assert_eq!(time("1970-01-01T00:00:01Z"), Ok(Millis(1_000)));
        assert!(time("2h").unwrap() < time("1h").unwrap());
        for wrong in ["yesterday", "", "-1h"] {
            assert!(time(wrong).unwrap_err().contains("a duration (2h)"), "{wrong}");
        }
        assert!(location("17").unwrap_err().contains("0@17"));
    }
}
