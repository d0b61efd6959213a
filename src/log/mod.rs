//! Logging: `[log]`, and the subscriber that writes to standard error.
//!
//! One event is one line, whatever its values hold. A caller never waits: lines go through a bounded channel to a
//! thread that writes them, and what does not fit is counted. Repeated warnings and errors of a callsite are
//! suppressed. Spans are not shown: facts are fields.

mod complete;
mod error;
mod filter;
mod limit;
mod line;
mod writer;

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::TrySendError;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;
use tracing::Event;
use tracing::Level;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::measure::Counter;

pub use complete::complete_with;
pub use error::Error;
use line::Content;
use line::Look;
use writer::Order;
use writer::Shared;

/// The most lines that wait for the output: a few MiB if all are of maximum length.
const MAX_WAITING: usize = 512;

/// The format of the process, once logging has started.
static LOOK: OnceLock<Look> = OnceLock::new();

/// How long the end of the process waits for the last lines.
const MAX_FLUSH: Duration = Duration::from_secs(1);

/// The level and format of log lines.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The format of a line.
    pub format: Format,
    /// The minimum level, or a filter such as `"info,walrelay::relay=debug"`.
    pub level: String,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `pretty` on a terminal, `json` otherwise.
    #[default]
    Auto,
    /// Text for people.
    Pretty,
    /// One JSON object per line.
    Json,
    /// `key=value` pairs.
    Logfmt,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::default(), level: "info".to_owned() }
    }
}

impl Config {
    /// Checks the filter before logging starts.
    pub fn check(&self) -> Result<(), Error> {
        filter::parse(&self.level).map(drop)
    }
}

/// Keeps logging alive. Dropping it writes the waiting lines, for one second at most.
#[derive(Debug)]
pub struct Guard {
    orders: SyncSender<Order>,
    shared: Arc<Shared>,
}

/// Starts logging to standard error, for the whole process.
pub fn start(config: &Config) -> Result<Guard, Error> {
    let is_terminal = io::stderr().is_terminal();
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let look = look(config.format, is_terminal, is_terminal && !is_set("NO_COLOR") && !is_dumb);
    let (subscriber, guard) = subscriber(config, look, Box::new(io::stderr()))?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::AlreadyStarted)?;
    let _ = LOOK.set(look);
    Ok(guard)
}

/// Writes an error directly, not through the writer thread, for a process that ends now. Returns whether logging has
/// started.
pub fn write_now(message: &str, fields: &[(&'static str, &str)]) -> bool {
    let Some(look) = LOOK.get() else { return false };
    let content = Content::of_texts(message, fields);
    let line = line::write(*look, SystemTime::now(), Level::ERROR, module_path!(), &content);
    let _ = io::stderr().write_all(line.as_bytes());
    true
}

impl Guard {
    /// Counts the lines that the output did not take in time.
    #[must_use]
    pub fn dropped(&self) -> Counter {
        self.shared.dropped.clone()
    }

    /// Counts the lines that were suppressed as repetitions.
    #[must_use]
    pub fn suppressed(&self) -> Counter {
        self.shared.suppressed.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let deadline = Instant::now() + MAX_FLUSH;
        let (done, ended) = mpsc::sync_channel(1);
        let mut end = Order::End(done);
        while let Err(TrySendError::Full(order)) = self.orders.try_send(end) {
            if Instant::now() >= deadline {
                return;
            }
            end = order;
            thread::sleep(Duration::from_millis(5));
        }
        let _ = ended.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

const fn look(format: Format, is_terminal: bool, is_colored: bool) -> Look {
    match format {
        Format::Auto if is_terminal => Look::Pretty { is_colored },
        Format::Pretty => Look::Pretty { is_colored },
        Format::Auto | Format::Json => Look::Json,
        Format::Logfmt => Look::Logfmt,
    }
}

/// Builds everything but the global registration, so that a test can have its own.
fn subscriber(
    config: &Config,
    look: Look,
    out: Box<dyn Write + Send>,
) -> Result<(impl Subscriber + Send + Sync + 'static, Guard), Error> {
    let targets = filter::parse(&config.level)?;
    let (orders, received) = mpsc::sync_channel(MAX_WAITING);
    let shared = Arc::new(Shared::new(look));
    let theirs = Arc::clone(&shared);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writer::run(out, &received, &theirs))
        .map_err(Error::Thread)?;
    let lines = Lines { orders: orders.clone(), shared: Arc::clone(&shared) };
    Ok((Registry::default().with(lines.with_filter(targets)), Guard { orders, shared }))
}

/// Formats events and passes the lines to the writer.
#[derive(Debug)]
struct Lines {
    orders: SyncSender<Order>,
    shared: Arc<Shared>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let content = Content::of(event);
        // An error compares as less than a warning.
        if *metadata.level() <= Level::WARN {
            let now = Instant::now();
            // Each mistake in the configuration counts by itself.
            let kind = [content.text("code"), content.text("mistake")];
            if !self.shared.limit().admits(metadata, kind, content.message(), now) {
                self.shared.suppressed.increment();
                return;
            }
        }
        let line = line::write(self.shared.look, SystemTime::now(), *metadata.level(), metadata.target(), &content);
        if self.orders.try_send(Order::Line(line)).is_err() {
            self.shared.dropped.increment();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::sync::Mutex;
    use tracing::subscriber::with_default;
    use walrelay_events::fault::Diagnose as _;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Screen {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    fn logged(level: &str, log: impl FnOnce()) -> Vec<String> {
        let screen = Screen::default();
        let config = Config { level: level.to_owned(), ..Config::default() };
        let (subscriber, guard) = subscriber(&config, Look::Json, Box::new(screen.clone())).unwrap();
        with_default(subscriber, log);
        drop(guard);
        screen.lines()
    }

    #[test]
    fn an_event_becomes_one_line_with_its_fields() {
        let lines = logged("info", || {
            let lsn: crate::lsn::Lsn = "16/B374D848".parse().unwrap();
            let error: &(dyn std::error::Error + 'static) = &Error::Thread(io::Error::other("no\nmemory"));
            tracing::info!(%lsn, slot = "orders", events = 3_u64, whole = true, share = 0.5, error, "streaming");
            tracing::debug!("not shown");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        for (key, value) in [
            ("level", serde_json::json!("INFO")),
            ("message", serde_json::json!("streaming")),
            ("lsn", serde_json::json!("16/B374D848")),
            ("events", serde_json::json!(3)),
            ("whole", serde_json::json!(true)),
            ("share", serde_json::json!(0.5)),
            ("error", serde_json::json!("start the thread that writes log lines: no\nmemory")),
        ] {
            assert_eq!(line[key], value, "{key}");
        }
    }

    #[test]
    fn repetitions_are_held_back_and_counted_at_the_end() {
        let lines = logged("info", || {
            for _ in 0..100 {
                tracing::warn!(code = "WR-6901", "brokers down");
                tracing::info!("progress");
            }
        });
        let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
        assert_eq!(count("\"message\":\"brokers down\""), 5);
        assert_eq!(count("\"message\":\"progress\""), 100);
        assert_eq!(count("\"suppressed\":95,\"code\":\"WR-6901\""), 1, "{lines:?}");
    }

    #[test]
    fn a_reader_that_stops_reading_stops_nobody() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (subscriber, guard) = subscriber(&Config::default(), Look::Logfmt, Box::new(writer)).unwrap();
        let dropped = guard.dropped();
        let start = Instant::now();
        with_default(subscriber, || {
            for number in 0..20_000 {
                tracing::info!(number, "a line that nobody reads");
            }
        });
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(dropped.value() > 10_000, "{}", dropped.value());
        let start = Instant::now();
        drop(guard);
        assert!(start.elapsed() < MAX_FLUSH * 3, "{:?}", start.elapsed());
        // When somebody reads again, the writer continues and reports what was lost.
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.contains("lost="), "{text}");
    }

    #[test]
    fn a_reader_that_is_gone_is_no_reason_to_panic() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (subscriber, guard) = subscriber(&Config::default(), Look::Json, Box::new(writer)).unwrap();
        with_default(subscriber, || tracing::info!("into the void"));
        drop(guard);
    }

    #[test]
    fn the_look_follows_the_terminal_only_where_it_may() {
        for (format, is_terminal, expected) in [
            (Format::Auto, true, Look::Pretty { is_colored: true }),
            (Format::Auto, false, Look::Json),
            (Format::Pretty, false, Look::Pretty { is_colored: false }),
            (Format::Json, true, Look::Json),
            (Format::Logfmt, true, Look::Logfmt),
        ] {
            assert_eq!(look(format, is_terminal, is_terminal), expected, "{format:?} {is_terminal}");
        }
    }

    #[test]
    fn a_bad_filter_is_a_configuration_error_with_a_way_out() {
        let config = Config { level: "inof".to_owned(), ..Config::default() };
        let Err(error) = subscriber(&config, Look::Json, Box::new(io::sink())) else { panic!("it was taken") };
        assert_eq!(error.code().to_string(), "WR-6450");
        assert!(error.help().unwrap().starts_with("did you mean \"info\"?"));
    }
}
