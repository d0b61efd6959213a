//! The page at `/`: the relay's state, its lag and its last error.
//!
//! It needs no script and no other file, follows the reader's light or dark mode, and fits a phone.

use std::fmt::Write;

use super::status::Status;

const STYLE: &str = ":root{color-scheme:light dark}\
    body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}\
    h1{font-size:1.3rem}table{border-collapse:collapse;width:100%}\
    th,td{text-align:left;padding:.25rem .75rem .25rem 0;vertical-align:top;overflow-wrap:anywhere}\
    th{font-weight:normal;opacity:.7;width:40%}\
    .good{border-left:.4rem solid #2a8f4b;padding-left:.6rem}.bad{border-left:.4rem solid #c4372c;padding-left:.6rem}";

/// The number of topics on the page; `/status` has all.
const MAX_TOPICS: usize = 20;

/// Writes the page.
pub(super) fn write(status: &Status) -> String {
    let name = escaped(&status.name);
    let mut html = String::with_capacity(4_096);
    let mood = if status.ready { "good" } else { "bad" };
    html.push_str("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    html.push_str("<meta http-equiv=\"refresh\" content=\"5\">");
    let _ = write!(html, "<title>walrelay {name}</title><style>{STYLE}</style></head><body>");
    let _ = write!(html, "<h1 class=\"{mood}\">{name}: {}</h1><table>", status.state.replace('_', " "));
    overview(&mut html, status);
    html.push_str("</table>");
    if let Some(error) = &status.last_error {
        let at = error.at.as_deref().unwrap_or("unknown time");
        let _ = write!(html, "<h2>Last error</h2><p class=\"bad\"><b>{}</b> {}", escaped(&error.code), escaped(at));
        let _ = write!(html, "<br>{}", escaped(&error.text));
        if let Some(help) = &error.help {
            let _ = write!(html, "<br>{}", escaped(help));
        }
        html.push_str("</p>");
    }
    topics(&mut html, status);
    let _ = write!(
        html,
        "<p>walrelay {}. Also: <a href=\"/status\">status</a>, <a href=\"/metrics\">metrics</a>, \
         <a href=\"/readyz?verbose\">readiness</a></p></body></html>",
        escaped(status.version)
    );
    html
}

fn overview(html: &mut String, status: &Status) {
    let text = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    let lag = &status.lag;
    let of_wal = [
        ("WAL not confirmed", text(lag.deliver_bytes.map(size))),
        ("Confirmed", text(status.confirmed_lsn.map(|lsn| lsn.to_string()))),
        ("End of WAL", text(status.server_wal_end_lsn.map(|lsn| lsn.to_string()))),
    ];
    let rows = [
        ("Since", text(status.state_since.clone())),
        ("Role", text(status.role.map(str::to_owned))),
        ("PostgreSQL", status.postgres_word().to_owned()),
        ("Kafka", status.kafka_word().to_owned()),
        ("Lag", text(lag.deliver_seconds.map(|seconds| format!("{seconds:.1} s")))),
        ("In flight", format!("{} records, {}", status.in_flight.records, size(status.in_flight.bytes))),
        ("Last acknowledgement", text(status.last_delivery.clone())),
    ];
    for (name, value) in rows {
        row(html, name, &value);
    }
    match &status.slot {
        Some(name) => {
            of_wal.iter().for_each(|(name, value)| row(html, name, value));
            row(html, "Slot", &slot(name, status));
        }
        None => row(html, "Unpublished", &text(status.unpublished.map(|count| format!("{count} events")))),
    }
}

fn slot(name: &str, status: &Status) -> String {
    let Some(view) = &status.slot_view else { return name.to_owned() };
    let word = view.wal_status.unwrap_or("unknown");
    let held = if view.active { "active" } else { "not active" };
    format!("{name}: {held}, WAL {word}, {} retained", size(view.retained_wal_bytes))
}

fn topics(html: &mut String, status: &Status) {
    if status.published.is_empty() {
        return;
    }
    html.push_str("<h2>Published since the start</h2><table>");
    for (topic, published) in status.published.iter().take(MAX_TOPICS) {
        row(html, topic, &format!("{} events, {}", published.events, size(published.bytes)));
    }
    if let Some(more @ 1..) = status.published.len().checked_sub(MAX_TOPICS) {
        row(html, "further topics", &more.to_string());
    }
    html.push_str("</table>");
}

fn row(html: &mut String, name: &str, value: &str) {
    let _ = write!(html, "<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(value));
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
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
    use crate::relay::metrics::Component;
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
            Some("look & \"see\"".to_owned())
        }
    }

    #[test]
    fn foreign_text_cannot_become_markup() {
        let sources = Sources::new("<b>'", "s", "p", relay::Metrics::default());
        sources.relay.failed(Component::Relay, &Hostile);
        let _ = sources.relay.topics.index("<img src=x>");
        let html = write(&Status::of(&sources));
        for forbidden in ["<script", "<img", "<b>'", "src=\"", "url("] {
            assert!(!html.contains(forbidden), "{forbidden} is in {html}");
        }
        for expected in ["WR-6802", "&lt;script&gt;", "look &amp; &quot;see&quot;", "&lt;b&gt;&#39;: starting"] {
            assert!(html.contains(expected), "{expected} is not in {html}");
        }
    }
}
