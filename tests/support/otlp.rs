//! A collector inside this process: a real exporter on one side, a receiver that decodes OTLP over HTTP on the other.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::Bytes;
use opentelemetry_http::HttpClient;
use opentelemetry_http::HttpError;
use opentelemetry_http::Request;
use opentelemetry_http::Response;
use opentelemetry_otlp::Protocol;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_otlp::WithHttpConfig as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::Value;
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt as _;

/// A span, as it arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Span {
    pub name: String,
    pub trace_id: String,
    pub span_id: String,
    pub parent_span_id: String,
    /// OTLP's number: 1 internal, 5 consumer.
    pub kind: u64,
    /// Trace and span of each link.
    pub links: Vec<(String, String)>,
}

/// A receiver, and what it has received.
pub struct Collector {
    port: u16,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Listens on a port of its own.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let spans = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&spans);
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let body = receive(&stream);
                received.lock().unwrap().extend(decode(&serde_json::from_slice(&body).unwrap()));
                // Only now: a client that has its answer finds its spans.
                stream.write_all(ANSWER).unwrap();
            }
        });
        Self { port, spans }
    }

    /// Makes a subscriber whose spans are exported here, each as it ends.
    pub fn subscriber(&self) -> Dispatch {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client)
            .with_protocol(Protocol::HttpJson)
            .with_endpoint(format!("http://127.0.0.1:{}/v1/traces", self.port))
            .build()
            .unwrap();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tests"));
        Dispatch::new(tracing_subscriber::registry().with(layer))
    }

    /// Finds the one span of this name.
    pub fn span(&self, name: &str) -> Span {
        let mut named = self.spans(name);
        assert_eq!(named.len(), 1, "spans called {name:?}");
        named.remove(0)
    }

    /// Finds every span of this name, in the order in which they ended.
    pub fn spans(&self, name: &str) -> Vec<Span> {
        self.spans.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect()
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

fn receive(stream: &TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            Some(_) => {}
            None if line.trim_end().is_empty() => break,
            None => assert!(line.starts_with("POST /v1/traces "), "{line}"),
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    body
}

fn decode(request: &Value) -> Vec<Span> {
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let resources = list(request, "resourceSpans");
    let scopes = resources.iter().flat_map(|resource| list(resource, "scopeSpans"));
    let spans = scopes.flat_map(|scope| list(&scope, "spans"));
    spans
        .map(|span| Span {
            name: text(&span, "name"),
            trace_id: text(&span, "traceId"),
            span_id: text(&span, "spanId"),
            parent_span_id: text(&span, "parentSpanId"),
            kind: span["kind"].as_u64().unwrap_or_default(),
            links: list(&span, "links").iter().map(|link| (text(link, "traceId"), text(link, "spanId"))).collect(),
        })
        .collect()
}

/// The exporter's way to the receiver: one request, one connection.
#[derive(Debug)]
struct Client;

impl HttpClient for Client {
    fn send_bytes<'c, 'f>(
        &'c self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'c: 'f,
        Self: 'f,
    {
        Box::pin(async move { send(&request) })
    }
}

fn send(request: &Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let host = request.uri().authority().ok_or("no host")?.as_str();
    let mut stream = TcpStream::connect(host)?;
    let (path, length) = (request.uri().path(), request.body().len());
    write!(stream, "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n")?;
    stream.write_all(request.body())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    Ok(Response::new(Bytes::new()))
}
