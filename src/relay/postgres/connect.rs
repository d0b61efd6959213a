//! The one door: from a target to a connection that is authenticated and idle.
//!
//! Hosts are tried in turn. Each gets an equal share of what is left of `connect_timeout`, so one that does not answer
//! leaves time for the next. As in libpq, a host that refuses our credentials ends the search.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::time::Instant;

use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

use super::Config;
use super::Error;
use super::Found;
use super::Host;
use super::SslMode;
use super::Target;
use super::auth;
use super::auth::Login;
use super::message::Answer;
use super::message::Messages;
use super::tls::Connector;
use super::transport::Transport;

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// Commands of the replication protocol, then the stream.
    Replication,
    /// Ordinary queries.
    Queries,
    /// Ordinary queries on a session that may be another one in the next transaction: nothing is set on it.
    Shared,
}

/// A connection on which the server waits for a command.
#[derive(Debug)]
pub(super) struct Connected {
    /// The connection.
    pub(super) messages: Messages,
    /// What the server said of itself and of the session.
    pub(super) parameters: Vec<(String, String)>,
    /// The body of BackendKeyData.
    pub(super) key: Option<Vec<u8>>,
    /// Which server this is.
    pub(super) found: Found,
}

/// An attempt: who wants to connect, and how.
struct Attempt<'a> {
    target: &'a Target,
    config: &'a Config,
    connector: Option<Connector>,
    application_name: &'a str,
    purpose: Purpose,
}

/// A place to connect to: a host has several if its name has several addresses.
enum Place {
    Socket(std::path::PathBuf),
    Address(SocketAddr),
}

/// Why a server does not let us in.
enum Shut {
    /// TLS does not come about, or `pg_hba.conf` wants none of us over it.
    OverTls(Error),
    /// Without TLS it would be the same.
    Anyway(Error),
}

impl From<Error> for Shut {
    fn from(error: Error) -> Self {
        if matches!(error, Error::Tls { .. }) { Self::OverTls(error) } else { Self::Anyway(error) }
    }
}

/// Connects to the first server of the list that will do.
pub(super) async fn connect(
    target: &Target,
    config: &Config,
    application_name: &str,
    purpose: Purpose,
) -> Result<Connected, Error> {
    let limit = target.connect_timeout.unwrap_or(config.connect_timeout);
    let deadline = Instant::now() + limit;
    let has_tcp = target.hosts.iter().any(|host| matches!(host, Host::Tcp { .. }));
    let connector =
        if has_tcp && target.ssl_mode != SslMode::Disable { Some(Connector::new(target, &config.tls)?) } else { None };
    let attempt = Attempt { target, config, connector, application_name, purpose };
    let mut failures = Vec::new();
    for (place, host) in target.hosts.iter().enumerate() {
        let left = target.hosts.len() - place;
        match within(share(deadline, left), host, attempt.host(host, deadline, left)).await {
            Ok(connected) => return Ok(connected),
            Err(error) if is_refusal(&error) => return Err(error),
            Err(error) => failures.push(error),
        }
    }
    Err(combine(failures))
}

fn share(deadline: Instant, left: usize) -> Duration {
    let rest = deadline.saturating_duration_since(Instant::now());
    rest / u32::try_from(left.max(1)).unwrap_or(u32::MAX)
}

async fn within<T>(limit: Duration, host: &Host, attempt: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout { host: host.to_string(), limit }),
    }
}

/// Says whether the server knows who we are and does not want us; another host would say the same.
fn is_refusal(error: &Error) -> bool {
    let is_server = matches!(error, Error::Server(_) | Error::Authentication { .. } | Error::Secret(_));
    is_server && error.fate() == Fate::Fatal && error.code().exit() == Exit::Rights
}

fn combine(mut failures: Vec<Error>) -> Error {
    match (failures.len(), failures.pop()) {
        (_, None) => Error::Closed,
        (1, Some(only)) => only,
        (_, Some(last)) => {
            failures.push(last);
            Error::NoHost(failures)
        }
    }
}

impl Attempt<'_> {
    async fn host(&self, host: &Host, deadline: Instant, hosts_left: usize) -> Result<Connected, Error> {
        let places = self.places(host).await?;
        let mut failures = Vec::new();
        for (index, place) in places.iter().enumerate() {
            let left = places.len() - index + hosts_left - 1;
            match within(share(deadline, left), host, self.place(host, place)).await {
                Ok(connected) => return Ok(connected),
                Err(error) if is_refusal(&error) => return Err(error),
                Err(error) => failures.push(error),
            }
        }
        // The addresses of one name are one server to the reader: the last reason stands for all.
        Err(failures.pop().unwrap_or(Error::Closed))
    }

    async fn places(&self, host: &Host) -> Result<Vec<Place>, Error> {
        Ok(match host {
            Host::Unix { directory, port } => vec![Place::Socket(directory.join(format!(".s.PGSQL.{port}")))],
            Host::Tcp { address: Some(address), port, .. } => vec![Place::Address(SocketAddr::new(*address, *port))],
            Host::Tcp { name, port, .. } => {
                let found = tokio::net::lookup_host((name.as_str(), *port)).await;
                found.map_err(Error::io(format!("find the address of {name}")))?.map(Place::Address).collect()
            }
        })
    }

    async fn place(&self, host: &Host, place: &Place) -> Result<Connected, Error> {
        let mode = self.target.ssl_mode;
        let messages = match self.enter(host, place, mode).await {
            Ok(messages) => messages,
            // libpq's meaning of "prefer": with TLS if that works, and else without.
            Err(Shut::OverTls(error)) if mode == SslMode::Prefer => {
                match self.enter(host, place, SslMode::Disable).await {
                    Ok(messages) => messages,
                    Err(Shut::OverTls(plain) | Shut::Anyway(plain)) => return Err(Error::NoHost(vec![error, plain])),
                }
            }
            Err(Shut::OverTls(error) | Shut::Anyway(error)) => return Err(error),
        };
        let address = match place {
            Place::Socket(_) => None,
            Place::Address(address) => Some(address.ip()),
        };
        let mut connected = Connected::greet(messages, Found { host: host.clone(), address }).await?;
        if self.target.needs_read_write {
            // Unlike libpq, which also passes over a server whose sessions are read-only by default: ours ask for writes.
            let rows = connected.query("SELECT pg_catalog.pg_is_in_recovery()").await?;
            let refuses = rows.first().and_then(|row| row.first()).is_none_or(|cell| cell.as_deref() != Some("f"));
            if refuses {
                return Err(Error::ReadOnly { host: host.to_string() });
            }
        }
        if self.purpose != Purpose::Shared && connected.stores_any_bytes() {
            connected.query(STORED_BYTES).await?;
        }
        if self.purpose == Purpose::Queries {
            connected.query(SESSION).await?;
        }
        Ok(connected)
    }

    /// Goes as far as the server knows who we are.
    async fn enter(&self, host: &Host, place: &Place, mode: SslMode) -> Result<Messages, Shut> {
        let transport = match place {
            Place::Socket(path) => Transport::unix(host, path).await?,
            Place::Address(address) => Transport::tcp(host, *address, mode, self.connector.as_ref()).await?,
        };
        let mut messages = Messages::new(transport);
        messages.send(&self.startup()?).await?;
        let login = Login::new(self.target, host, self.config);
        match auth::authenticate(&mut messages, &login).await {
            Ok(()) => Ok(messages),
            Err(error) if messages.transport.is_tls() && error.is_refused_by_rules() => Err(Shut::OverTls(error)),
            Err(error) => Err(error.into()),
        }
    }

    fn startup(&self) -> Result<BytesMut, Error> {
        let given = self.target.options.as_deref().unwrap_or_default();
        let options = match self.purpose {
            // Ours come last and win.
            Purpose::Replication => format!("{given} {}", replication_options(self.config)),
            Purpose::Queries | Purpose::Shared => given.to_owned(),
        };
        let mut parameters = vec![
            ("user", self.target.user.as_str()),
            ("database", &self.target.dbname),
            ("application_name", self.application_name),
            ("client_encoding", "UTF8"),
        ];
        if self.purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        if !options.trim().is_empty() {
            parameters.push(("options", options.trim()));
        }
        let mut message = BytesMut::new();
        frontend::startup_message(parameters, &mut message).map_err(Error::io("write the startup message"))?;
        Ok(message)
    }
}

/// Names mean what they say, whatever the role's settings are. And what is written, such as a position, is on this server's disk
/// when the write returns: neither later, or a crash would leave it behind the slot, nor only when a standby has it, which may
/// be dead. Sessions that are read-only by default are what an operator or a vendor sets on a full disk: only a position that is
/// written frees WAL there.
pub(super) const SESSION: &str =
    "SET search_path = pg_catalog; SET synchronous_commit = local; SET default_transaction_read_only = off";

/// In a database of this encoding no byte means a character, so none can be converted: under any other client encoding the
/// server would only refuse what is not legal in that one.
const SQL_ASCII: &str = "SQL_ASCII";
const STORED_BYTES: &str = "SET client_encoding = 'SQL_ASCII'";

/// What the session needs without any change of the server: its limits, and a text form that no setting changes.
fn replication_options(config: &Config) -> String {
    format!(
        "-c wal_sender_timeout={}ms -c logical_decoding_work_mem={}kB -c DateStyle=ISO -c IntervalStyle=iso_8601 \
         -c TimeZone=UTC -c extra_float_digits=3 -c bytea_output=hex",
        config.wal_sender_timeout.as_millis(),
        // The server takes no less than 64 kB.
        (config.logical_decoding_work_mem >> 10).clamp(64, i32::MAX.unsigned_abs().into()),
    )
}

impl Connected {
    async fn greet(messages: Messages, found: Found) -> Result<Self, Error> {
        let mut connected = Self { messages, parameters: Vec::new(), key: None, found };
        loop {
            match connected.messages.next().await? {
                Answer::Ready => return Ok(connected),
                Answer::Parameter(name, value) => connected.parameters.push((name, value)),
                Answer::Key(key) => connected.key = Some(key),
                Answer::Aside => {}
                other @ (Answer::Authentication(..)
                | Answer::RowDescription
                | Answer::Row(_)
                | Answer::Complete
                | Answer::CopyBoth) => return Err(other.unexpected("greeting")),
            }
        }
    }

    /// Gives a setting as the server reported it.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Says whether the database takes any bytes for text, and so must be asked for them as they are stored.
    pub(super) fn stores_any_bytes(&self) -> bool {
        self.parameter("server_encoding") == Some(SQL_ASCII)
    }

    /// Sends a command.
    pub(super) async fn command(&mut self, sql: &str) -> Result<(), Error> {
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message).map_err(Error::io("write a command"))?;
        self.messages.send(&message).await
    }

    /// Runs a command and gives its rows, in text. After an error of the server the next command may come.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.command(sql).await?;
        let mut rows = Vec::new();
        let mut refusal = None;
        loop {
            match self.messages.next().await {
                Ok(Answer::Row(row)) => rows.push(row),
                Ok(Answer::Ready) => return refusal.map_or(Ok(rows), Err),
                Ok(Answer::Parameter(name, value)) => self.parameters.push((name, value)),
                Ok(Answer::RowDescription | Answer::Complete | Answer::Aside) => {}
                Ok(other @ (Answer::Authentication(..) | Answer::Key(_) | Answer::CopyBoth)) => {
                    return Err(other.unexpected("answer to a query"));
                }
                Err(error @ Error::Server(_)) => refusal = Some(error),
                // After a fatal error the server closes without another word.
                Err(error) => return Err(refusal.unwrap_or(error)),
            }
        }
    }
}
