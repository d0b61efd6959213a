//! Connects to a target: the result is authenticated and idle.
//!
//! Hosts are tried in turn. Each gets an equal share of the rest of `connect_timeout`, so that a host that does not
//! answer leaves time for the next one. As in libpq, a host that rejects the credentials ends the attempt.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::time::Instant;

use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

use super::auth;
use super::auth::Login;
use super::config::Config;
use super::error::Error;
use super::message::Answer;
use super::message::Messages;
use super::target::Found;
use super::target::Host;
use super::target::SslMode;
use super::target::Target;
use super::tls::Connector;
use super::transport::Transport;

/// The use of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// Replication commands, then the stream.
    Replication,
    /// Ordinary queries.
    Queries,
    /// Ordinary queries through a pooler: each transaction may use another session, so nothing is set on it.
    Shared,
}

/// A connection on which the server waits for a command.
#[derive(Debug)]
pub(super) struct Connected {
    /// The connection.
    pub(super) messages: Messages,
    /// The ParameterStatus messages.
    pub(super) parameters: Vec<(String, String)>,
    /// The body of BackendKeyData.
    pub(super) key: Option<Vec<u8>>,
    /// Which server this is.
    pub(super) found: Found,
}

/// One attempt to connect.
struct Attempt<'a> {
    target: &'a Target,
    config: &'a Config,
    connector: Option<Connector>,
    application_name: &'a str,
    purpose: Purpose,
}

/// A host has several endpoints if its name has several addresses.
enum Endpoint {
    Socket(std::path::PathBuf),
    Address(SocketAddr),
}

/// The server or TLS rejected the connection.
enum Rejection {
    /// TLS failed, or `pg_hba.conf` rejects the connection with TLS.
    WithTls(Error),
    /// It would be rejected without TLS as well.
    Always(Error),
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        if matches!(error, Error::Tls { .. }) { Self::WithTls(error) } else { Self::Always(error) }
    }
}

/// Connects to the first server of the list that is suitable.
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
    for (index, host) in target.hosts.iter().enumerate() {
        let left = target.hosts.len() - index;
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

/// Says whether the server rejected the credentials: another host would do the same.
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
        let endpoints = self.endpoints(host).await?;
        let mut failures = Vec::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let left = endpoints.len() - index + hosts_left - 1;
            match within(share(deadline, left), host, self.connect_to(host, endpoint)).await {
                Ok(connected) => return Ok(connected),
                Err(error) if is_refusal(&error) => return Err(error),
                Err(error) => failures.push(error),
            }
        }
        // The addresses of one name belong to one server: the last error is reported.
        Err(failures.pop().unwrap_or(Error::Closed))
    }

    async fn endpoints(&self, host: &Host) -> Result<Vec<Endpoint>, Error> {
        Ok(match host {
            Host::Unix { directory, port } => vec![Endpoint::Socket(directory.join(format!(".s.PGSQL.{port}")))],
            Host::Tcp { address: Some(address), port, .. } => vec![Endpoint::Address(SocketAddr::new(*address, *port))],
            Host::Tcp { name, port, .. } => {
                let found = tokio::net::lookup_host((name.as_str(), *port)).await;
                found
                    .map_err(Error::io(format!("could not translate host name {name:?} to address")))?
                    .map(Endpoint::Address)
                    .collect()
            }
        })
    }

    async fn connect_to(&self, host: &Host, endpoint: &Endpoint) -> Result<Connected, Error> {
        let mode = self.target.ssl_mode;
        let messages = match self.log_in(host, endpoint, mode).await {
            Ok(messages) => messages,
            // As in libpq, "prefer" retries without TLS.
            Err(Rejection::WithTls(error)) if mode == SslMode::Prefer => {
                match self.log_in(host, endpoint, SslMode::Disable).await {
                    Ok(messages) => messages,
                    Err(Rejection::WithTls(plain) | Rejection::Always(plain)) => {
                        return Err(Error::NoHost(vec![error, plain]));
                    }
                }
            }
            Err(Rejection::WithTls(error) | Rejection::Always(error)) => return Err(error),
        };
        let address = match endpoint {
            Endpoint::Socket(_) => None,
            Endpoint::Address(address) => Some(address.ip()),
        };
        let mut connected = Connected::greet(messages, Found { host: host.clone(), address }).await?;
        if self.target.needs_read_write {
            // libpq also skips a server whose sessions are read-only by default. These sessions override that setting.
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

    /// Connects and authenticates.
    async fn log_in(&self, host: &Host, endpoint: &Endpoint, mode: SslMode) -> Result<Messages, Rejection> {
        let transport = match endpoint {
            Endpoint::Socket(path) => Transport::unix(host, path).await?,
            Endpoint::Address(address) => Transport::tcp(host, *address, mode, self.connector.as_ref()).await?,
        };
        let mut messages = Messages::new(transport);
        messages.send(&self.startup()?).await?;
        let login = Login::new(self.target, host, self.config);
        match auth::authenticate(&mut messages, &login).await {
            Ok(()) => Ok(messages),
            Err(error) if messages.transport.is_tls() && error.is_refused_by_rules() => Err(Rejection::WithTls(error)),
            Err(error) => Err(error.into()),
        }
    }

    fn startup(&self) -> Result<BytesMut, Error> {
        let given = self.target.options.as_deref().unwrap_or_default();
        let options = match self.purpose {
            // The last one of a setting wins.
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
        frontend::startup_message(parameters, &mut message)
            .map_err(Error::io("could not build the startup message"))?;
        Ok(message)
    }
}

/// Independent of the role's settings: an unqualified name is PostgreSQL's own. A write, such as a position, is on this
/// server's disk when it returns: not later, or a crash would leave the position behind the slot, and not only when a
/// standby has it, which may be down. `default_transaction_read_only` is set by operators and vendors on a full disk:
/// only a stored position frees WAL there.
pub(super) const SESSION: &str =
    "SET search_path = pg_catalog; SET synchronous_commit = local; SET default_transaction_read_only = off";

/// A database with this encoding converts nothing: under any other client encoding the server would only reject bytes
/// that are invalid in that one.
const SQL_ASCII: &str = "SQL_ASCII";
const STORED_BYTES: &str = "SET client_encoding = 'SQL_ASCII'";

/// The settings of the session: limits, and output formats that do not depend on the role or the database.
fn replication_options(config: &Config) -> String {
    format!(
        "-c wal_sender_timeout={}ms -c logical_decoding_work_mem={}kB -c DateStyle=ISO -c IntervalStyle=iso_8601 \
         -c TimeZone=UTC -c extra_float_digits=3 -c bytea_output=hex",
        config.wal_sender_timeout.as_millis(),
        // The server's minimum is 64 kB.
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
                Answer::Ignored => {}
                other @ (Answer::Authentication(..)
                | Answer::RowDescription
                | Answer::Row(_)
                | Answer::Complete
                | Answer::CopyBoth) => return Err(other.unexpected("greeting")),
            }
        }
    }

    /// Gives a setting from the last ParameterStatus.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Says whether the database stores any bytes as text, so that they must be requested without conversion.
    pub(super) fn stores_any_bytes(&self) -> bool {
        self.parameter("server_encoding") == Some(SQL_ASCII)
    }

    /// Sends a command.
    pub(super) async fn command(&mut self, sql: &str) -> Result<(), Error> {
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message).map_err(Error::io("could not build a query"))?;
        self.messages.send(&message).await
    }

    /// Runs a command and gives its rows as text. After an error of the server the connection is ready for the next
    /// command.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.command(sql).await?;
        let mut rows = Vec::new();
        let mut refusal = None;
        loop {
            match self.messages.next().await {
                Ok(Answer::Row(row)) => rows.push(row),
                Ok(Answer::Ready) => return refusal.map_or(Ok(rows), Err),
                Ok(Answer::Parameter(name, value)) => self.parameters.push((name, value)),
                Ok(Answer::RowDescription | Answer::Complete | Answer::Ignored) => {}
                Ok(other @ (Answer::Authentication(..) | Answer::Key(_) | Answer::CopyBoth)) => {
                    return Err(other.unexpected("answer to a query"));
                }
                Err(error @ Error::Server(_)) => refusal = Some(error),
                // After a fatal error the server closes the connection.
                Err(error) => return Err(refusal.unwrap_or(error)),
            }
        }
    }
}
