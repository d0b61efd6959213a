//! Answers a request.

use std::fmt::Write;
use std::time::Duration;
use std::time::SystemTime;

use http_body_util::Full;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::body::Bytes;
use hyper::header;
use hyper::header::HeaderValue;

use crate::metrics;
use crate::relay::metrics::MAX_POSITION_WAIT;

use super::page;
use super::status::LastError;
use super::status::MAX_STANDSTILL;
use super::status::Status;
use super::view::Observed;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

/// The page needs its own style and nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

struct Answer {
    status: StatusCode,
    kind: &'static str,
    body: String,
}

/// Answers a request.
pub(super) fn to<B: Body>(request: &Request<B>, observed: &Observed) -> Response<Full<Bytes>> {
    let answer = if request.method() != Method::GET {
        Answer::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed: only GET\n")
    } else if !request.body().is_end_stream() {
        Answer::text(StatusCode::PAYLOAD_TOO_LARGE, "request bodies are not accepted\n")
    } else {
        route(request.uri().path(), request.uri().query().unwrap_or_default(), observed)
    };
    answer.into_response()
}

fn route(path: &str, query: &str, observed: &Observed) -> Answer {
    let view = &observed.view;
    match path {
        "/livez" => live(view.since_tick()),
        "/readyz" => ready(&view.status(), query.split('&').any(|part| matches!(part, "verbose" | "verbose="))),
        "/metrics" => Answer { status: StatusCode::OK, kind: metrics::CONTENT_TYPE, body: view.exposition() },
        "/status" => json(&view.status()),
        "/version" => json(&view.status().build),
        "/" => {
            let body = page::write(&view.status(), &observed.rates(), SystemTime::now());
            Answer { status: StatusCode::OK, kind: HTML, body }
        }
        _ => Answer::text(StatusCode::NOT_FOUND, "not found: there are / /livez /readyz /metrics /status /version\n"),
    }
}

fn live(since_tick: Duration) -> Answer {
    let seconds = since_tick.as_secs_f64();
    if since_tick < MAX_STANDSTILL {
        return Answer::text(StatusCode::OK, &format!("alive: last tick {seconds:.1} s ago\n"));
    }
    let body = format!("not alive: no tick for {seconds:.0} s\n");
    Answer::text(StatusCode::SERVICE_UNAVAILABLE, &body)
}

fn ready(status: &Status, is_verbose: bool) -> Answer {
    let mut body = String::new();
    if is_verbose {
        let mark = |is_met| if is_met { "[+]" } else { "[-]" };
        let is_met = matches!(status.state, "streaming" | "standby");
        let _ = writeln!(body, "{} state: {} (required: streaming or standby)", mark(is_met), status.state);
        for (peer, is_up, word, why) in [
            ("postgres", status.connected.postgres, status.postgres_word(), "for information"),
            ("kafka", status.connected.kafka, status.kafka_word(), "required while streaming"),
        ] {
            let _ = writeln!(body, "{} {peer}: {word} ({why})", mark(is_up));
        }
        if let Some(seconds) = status.position_wait_seconds {
            let is_met = seconds < MAX_POSITION_WAIT.as_secs_f64();
            let limit = MAX_POSITION_WAIT.as_secs();
            let _ = writeln!(
                body,
                "{} position: waiting to be stored for {seconds:.0} s (required: less than {limit} s)",
                mark(is_met)
            );
        }
        if let Some(LastError { code, text, .. }) = status.last_error.as_ref().filter(|_| !status.ready) {
            let _ = writeln!(body, "[-] last error: {text} ({code})");
        }
    }
    let (code, word) =
        if status.ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let cause = status.last_error.as_ref().filter(|_| !status.ready && status.state != "draining");
    let cause = cause.map(|LastError { code, text, .. }| format!(": {text} ({code})")).unwrap_or_default();
    let _ = writeln!(body, "{word}: {}{cause}", status.state);
    Answer::text(code, &body)
}

fn json(value: &impl serde::Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(text) => Answer { status: StatusCode::OK, kind: JSON, body: text + "\n" },
        Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

impl Answer {
    fn text(status: StatusCode, body: &str) -> Self {
        Self { status, kind: TEXT, body: body.to_owned() }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.kind == HTML {
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
        }
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_is_not_alive_after_thirty_seconds_without_a_tick() {
        for (since_tick, expected) in [(0, StatusCode::OK), (29, StatusCode::OK), (30, StatusCode::SERVICE_UNAVAILABLE)]
        {
            assert_eq!(live(Duration::from_secs(since_tick)).status, expected, "{since_tick} s");
        }
    }
}
