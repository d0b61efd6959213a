//! The page at `/`: the relay's state with the cause of a stall, its lag, its throughput, and both ends.
//!
//! It needs no script and no other file, follows the reader's light or dark mode, and fits a phone.

use std::fmt::Write;
use std::time::SystemTime;

use crate::units::span;

use super::chart;
use super::status::LastError;
use super::status::MAX_STANDSTILL;
use super::status::Status;

const STYLE: &str = include_str!("page.css");

/// The number of topics on the page; `/status` has all.
const MAX_TOPICS: usize = 20;

/// Writes the page, with the rates of the chart.
pub(super) fn write(status: &Status, rates: &[f64], now: SystemTime) -> String {
    let name = escaped(&status.name);
    let mut html = String::with_capacity(8_192);
    html.push_str("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    html.push_str("<meta http-equiv=\"refresh\" content=\"5\">");
    let _ = write!(html, "<title>walrelay {name}</title><style>{STYLE}</style></head><body><main>");
    headline(&mut html, status, now);
    cards(&mut html, status);
    chart::write(&mut html, rates);
    source(&mut html, status, now);
    sink(&mut html, status, now);
    if let Some(error) = status.last_error.as_ref().filter(|_| status.ready) {
        html.push_str("<h2>Last error</h2>");
        failure(&mut html, error, now);
    }
    let _ = write!(
        html,
        "<footer>walrelay {}. Also: <a href=\"/status\">status</a>, <a href=\"/metrics\">metrics</a>, \
         <a href=\"/readyz?verbose\">readiness</a></footer></main></body></html>",
        escaped(status.version)
    );
    html
}

/// The state and, unless the relay is ready, why it is not.
fn headline(html: &mut String, status: &Status, now: SystemTime) {
    let mood = match (status.ready, status.state) {
        (true, _) => "good",
        (false, "starting" | "draining") => "fair",
        (false, _) => "bad",
    };
    let since = age(status.state_since.as_deref(), now).map(|age| format!(" for {age}")).unwrap_or_default();
    let (name, state, meaning) = (escaped(&status.name), status.state.replace('_', " "), meaning(status.state));
    let _ = write!(html, "<header class=\"{mood}\"><h1>{name}</h1><p><b>{state}</b>{since}{meaning}</p></header>");
    if status.since_tick_seconds >= MAX_STANDSTILL.as_secs_f64() {
        let _ = write!(
            html,
            "<p class=\"bad\">The relay thread has not moved for {}.</p>",
            span(status.since_tick_seconds)
        );
    }
    if let Some(seconds) = status.position_wait_seconds.filter(|_| !status.ready) {
        let _ = write!(html, "<p class=\"bad\">A position has waited {} to be stored.</p>", span(seconds));
    }
    if let Some(error) = status.last_error.as_ref().filter(|_| !status.ready) {
        failure(html, error, now);
    }
}

/// What a state other than streaming means for the events.
fn meaning(state: &str) -> &'static str {
    match state {
        "starting" => ": it waits for PostgreSQL and Kafka",
        "draining" => ": it stops, and waits for acknowledgements",
        "sink_blocked" => ": Kafka acknowledges nothing, and the events stay in PostgreSQL",
        "source_reconnecting" => ": PostgreSQL is not connected",
        "standby" => ": another relay publishes, and this one takes over when the slot is free",
        "stopped" => ": it has ended",
        _ => "",
    }
}

fn failure(html: &mut String, error: &LastError, now: SystemTime) {
    let ago = age(error.at.as_deref(), now).map(|age| format!(", {age} ago")).unwrap_or_default();
    let _ =
        write!(html, "<div class=\"bad\"><p><b>{}</b>{ago}</p><p>{}</p>", escaped(&error.code), escaped(&error.text));
    let help = error.help.clone().unwrap_or_else(|| format!("`walrelay explain {}` prints what it means", error.code));
    let _ = write!(html, "<p>Next: {}</p></div>", with_code(&help));
}

fn cards(html: &mut String, status: &Status) {
    let lag = status.lag.deliver_seconds.map(lag_text);
    let mut cards = vec![("Oldest event", text(lag)), ("In flight", many(status.in_flight.records, "record"))];
    match &status.slot_view {
        Some(slot) => {
            cards.push(("Retained WAL", size(slot.retained_wal_bytes)));
            let left = slot.seconds_to_invalidation.map(span);
            let limit = slot.safe_wal_bytes.map(|safe| format!("{} of WAL", size(safe.max(0).unsigned_abs())));
            cards.push(("Until slot loss", left.or(limit).unwrap_or_else(|| "no limit set".to_owned())));
        }
        None if status.slot.is_none() => {
            cards.push(("Unpublished", text(status.unpublished.map(|count| many(count, "event")))));
        }
        None => {}
    }
    html.push_str("<section class=\"cards\">");
    for (label, value) in cards {
        let _ = write!(html, "<div><span>{label}</span><b>{}</b></div>", escaped(&value));
    }
    html.push_str("</section>");
}

/// PostgreSQL, and how far the relay is.
fn source(html: &mut String, status: &Status, now: SystemTime) {
    html.push_str("<h2>From PostgreSQL</h2><table>");
    row(html, "Database", &text(status.database.clone()));
    row(html, "Connection", status.postgres_word());
    if let Some(role) = status.role {
        row(html, "Role", role);
    }
    if let Some(name) = &status.slot {
        row(html, "Slot", &slot(name, status, now));
        row(html, "Publication", &text(status.publication.clone()));
        row(html, "Confirmed", &text(status.confirmed_lsn.map(|lsn| lsn.to_string())));
        let behind = status.lag.deliver_bytes.map(|bytes| format!(", {} ahead", size(bytes))).unwrap_or_default();
        row(html, "End of WAL", &text(status.server_wal_end_lsn.map(|lsn| format!("{lsn}{behind}"))));
    }
    html.push_str("</table>");
    if let Some(ratio) = status.slot_view.as_ref().and_then(|slot| slot.wal_limit_used_ratio) {
        let _ = write!(
            html,
            "<p><meter min=\"0\" max=\"1\" low=\"0.5\" high=\"0.8\" optimum=\"0\" value=\"{ratio:.3}\"></meter>\
             {:.0} % of max_slot_wal_keep_size</p>",
            100.0 * ratio
        );
    }
}

fn slot(name: &str, status: &Status, now: SystemTime) -> String {
    let Some(view) = &status.slot_view else { return name.to_owned() };
    let word = view.wal_status.unwrap_or("unknown");
    let held = if view.active { "in use" } else { "not in use" };
    let ago = age(view.polled_at.as_deref(), now).map(|age| format!(" ({age} ago)")).unwrap_or_default();
    format!("{name}: {held}, wal_status {word}{ago}")
}

/// Kafka, and what it has acknowledged.
fn sink(html: &mut String, status: &Status, now: SystemTime) {
    html.push_str("<h2>To Kafka</h2><table>");
    row(html, "Brokers", &if status.brokers.is_empty() { text(None) } else { status.brokers.join(", ") });
    row(html, "Connection", status.kafka_word());
    let last = age(status.last_delivery.as_deref(), now).map(|age| format!("{age} ago"));
    row(html, "Last acknowledgement", &last.unwrap_or_else(|| "none since the start".to_owned()));
    let in_flight = &status.in_flight;
    row(html, "In flight", &format!("{} of {}", size(in_flight.bytes), size(in_flight.max_bytes)));
    for (topic, published) in status.published.iter().take(MAX_TOPICS) {
        row(html, topic, &format!("{}, {}", many(published.events, "event"), size(published.bytes)));
    }
    if let Some(more @ 1..) = status.published.len().checked_sub(MAX_TOPICS) {
        row(html, "further topics", &more.to_string());
    }
    html.push_str("</table>");
}

fn row(html: &mut String, name: &str, value: &str) {
    let _ = write!(html, "<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(value));
}

fn text(value: Option<String>) -> String {
    value.unwrap_or_else(|| "unknown".to_owned())
}

/// The time since an RFC 3339 time. A clock that is behind gives zero.
fn age(at: Option<&str>, now: SystemTime) -> Option<String> {
    let at = humantime::parse_rfc3339(at?).ok()?;
    Some(span(now.duration_since(at).unwrap_or_default().as_secs_f64()))
}

fn lag_text(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { span(seconds) }
}

fn many(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// Escapes a text and shows what stands in backticks as code.
fn with_code(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(at, part)| match at % 2 {
        0 => escaped(part),
        _ => format!("<code>{}</code>", escaped(part)),
    });
    parts.collect()
}

fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Sources;
    use crate::relay;
    use crate::relay::State;
    use crate::relay::metrics::Component;
    use std::time::Duration;
    use std::time::UNIX_EPOCH;
    use walrelay_events::fault::Code;
    use walrelay_events::fault::Diagnose;
    use walrelay_events::fault::Exit;
    use walrelay_events::fault::Fate;

    #[derive(Debug, thiserror::Error)]
    #[error("expected a topic, found <script>alert(1)</script>")]
    struct Hostile;

    impl Diagnose for Hostile {
        fn code(&self) -> Code {
            Code::new(Exit::Poison, 2)
        }

        fn fate(&self) -> Fate {
            Fate::Fatal
        }

        fn help(&self) -> Option<String> {
            Some("run `look & \"see\"`, then go".to_owned())
        }
    }

    #[test]
    fn foreign_text_cannot_become_markup() {
        let mut sources = Sources::new("<b>'", "s", "p", relay::Metrics::default());
        sources.database = Some("<i>shop".to_owned());
        sources.brokers = vec!["<u>kafka".to_owned()];
        sources.relay.failed(Component::Relay, &Hostile);
        let _ = sources.relay.topics.index("<img src=x>");
        let html = write(&Status::of(&sources), &[], SystemTime::now());
        for forbidden in ["<script", "<img", "<b>'", "<i>", "<u>", "src=\"", "url(", "http:", "https:"] {
            assert!(!html.contains(forbidden), "{forbidden} is in {html}");
        }
        for expected in
            ["WR-6802", "&lt;script&gt;", "<code>look &amp; &quot;see&quot;</code>, then go", "&lt;b&gt;&#39;"]
        {
            assert!(html.contains(expected), "{expected} is not in {html}");
        }
    }

    #[test]
    fn the_cause_stands_at_the_top_while_the_relay_is_not_ready_and_below_once_it_is() {
        let sources = Sources::new("orders", "s", "p", relay::Metrics::default());
        sources.relay.failed(Component::Relay, &Hostile);
        for (state, mood, is_first) in
            [(State::SinkBlocked, "bad", true), (State::Starting, "fair", true), (State::Streaming, "good", false)]
        {
            sources.relay.enter(state);
            sources.relay.kafka.connected();
            let html = write(&Status::of(&sources), &[1.0], SystemTime::now());
            assert!(html.contains(&format!("<header class=\"{mood}\">")), "{html}");
            assert_eq!(html.find("WR-6802") < html.find("From PostgreSQL"), is_first, "{state:?}");
        }
    }

    #[test]
    fn times_are_ages() {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(age(Some("1970-01-01T00:01:36.000Z"), now).as_deref(), Some("4 s"));
        assert_eq!(age(Some("1970-01-01T00:05:00.000Z"), now).as_deref(), Some("0 s"));
        assert_eq!((age(None, now), age(Some("soon"), now)), (None, None));
    }
}
