//! A replication connection that takes commands.

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::lsn::Lsn;
use crate::units::Secret;

use super::Config;
use super::Error;
use super::Host;
use super::Stream;
use super::Target;
use super::auth;
use super::auth::Login;
use super::message::Answer;
use super::message::Messages;
use super::tls;
use super::transport::Transport;

/// A replication connection that takes commands.
#[derive(Debug)]
pub struct Session {
    messages: Messages,
    server_version: u32,
    row_bytes_max: usize,
}

/// What IDENTIFY_SYSTEM says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SystemIdentity {
    /// The system identifier.
    pub system_id: String,
    /// The timeline.
    pub timeline: u32,
    /// The end of the flushed log.
    pub wal_end: Lsn,
}

/// What CREATE_REPLICATION_SLOT says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CreatedSlot {
    /// Every transaction that commits after this is in the slot.
    pub consistent_point: Lsn,
}

impl Session {
    /// Connects to the first server of the list that will do, and authenticates.
    pub async fn connect(target: &Target, config: &Config, application_name: &str) -> Result<Self, Error> {
        let connector = tls::connector(target, config)?;
        let mut last = None;
        for host in &target.hosts {
            let attempt = Self::connect_to(host, target, config, application_name, connector.as_ref());
            match tokio::time::timeout(config.connect_timeout, attempt).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {
                    let seconds = config.connect_timeout.as_secs();
                    last = Some(Error::Timeout { host: host.to_string(), seconds });
                }
            }
        }
        Err(last.unwrap_or(Error::Closed))
    }

    async fn connect_to(
        host: &Host,
        target: &Target,
        config: &Config,
        application_name: &str,
        connector: Option<&openssl::ssl::SslConnector>,
    ) -> Result<Self, Error> {
        let transport = Transport::open(host, target.ssl_mode, connector).await?;
        let mut messages = Messages::new(transport);
        let options = session_options(target, config);
        let parameters = [
            ("user", target.user.as_str()),
            ("database", &target.dbname),
            ("replication", "database"),
            ("application_name", application_name),
            ("client_encoding", "UTF8"),
            ("options", &options),
        ];
        let mut out = BytesMut::new();
        frontend::startup_message(parameters, &mut out).map_err(Error::io("send the startup message"))?;
        messages.send(&out).await?;
        let login = Login {
            user: &target.user,
            password: password(target, config)?,
            allow_weak: config.allow_weak_auth,
            channel_binding: target.channel_binding.unwrap_or(config.tls.channel_binding),
        };
        auth::authenticate(&mut messages, &login).await?;
        let row_bytes_max = usize::try_from(config.max_row_bytes).unwrap_or(usize::MAX);
        let mut session = Self { messages, server_version: 0, row_bytes_max };
        session.greet().await?;
        if target.needs_read_write {
            let rows = session.query("SELECT pg_catalog.pg_is_in_recovery()").await?;
            if cell(&rows, 0) == Some("t") {
                return Err(Error::ReadOnly { host: host.to_string() });
            }
        }
        Ok(session)
    }

    async fn greet(&mut self) -> Result<(), Error> {
        loop {
            match self.messages.next().await? {
                Answer::Ready => return Ok(()),
                Answer::Parameter(name, value) if name == "server_version" => {
                    self.server_version = version_number(&value);
                }
                Answer::Parameter(..)
                | Answer::Authentication(..)
                | Answer::RowDescription
                | Answer::Row(_)
                | Answer::Complete
                | Answer::CopyBoth
                | Answer::Aside => {}
            }
        }
    }

    /// Gives the server's version, as `server_version_num`; the minor number is not needed.
    #[must_use]
    pub const fn server_version(&self) -> u32 {
        self.server_version
    }

    /// Says whether TLS is in force.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.messages.transport.is_tls
    }

    /// Runs a command and gives its rows, in text.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.send(sql).await?;
        let mut rows = Vec::new();
        loop {
            match self.messages.next().await? {
                Answer::Row(row) => rows.push(row),
                Answer::Ready => return Ok(rows),
                Answer::Authentication(..)
                | Answer::Parameter(..)
                | Answer::RowDescription
                | Answer::Complete
                | Answer::CopyBoth
                | Answer::Aside => {}
            }
        }
    }

    /// Asks who the server is.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, Error> {
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        Ok(SystemIdentity {
            system_id: cell(&rows, 0).unwrap_or_default().to_owned(),
            timeline: cell(&rows, 1).and_then(|text| text.parse().ok()).unwrap_or_default(),
            wal_end: position(&rows, 2),
        })
    }

    /// Creates a slot. Waits for every transaction that is running, so it has no time limit.
    pub async fn create_slot(&mut self, name: &str, failover: bool) -> Result<CreatedSlot, Error> {
        let name = quote(name);
        let command = match (self.server_version, failover) {
            (..150_000, _) => format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput NOEXPORT_SNAPSHOT"),
            (_, true) => format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)"),
            (_, false) => format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput (SNAPSHOT 'nothing')"),
        };
        let rows = self.query(&command).await?;
        Ok(CreatedSlot { consistent_point: position(&rows, 1) })
    }

    /// Drops a slot; waits until nobody uses it.
    pub async fn drop_slot(&mut self, name: &str) -> Result<(), Error> {
        self.query(&format!("DROP_REPLICATION_SLOT {} WAIT", quote(name))).await.map(drop)
    }

    /// Starts the stream of a slot at a position.
    pub async fn start(mut self, slot: &str, from: Lsn, publication: &str, binary: bool) -> Result<Stream, Error> {
        // A list of identifiers inside a string literal: both quotings apply.
        let publications = quote(publication).replace('\'', "''");
        let binary = if binary { ", binary 'true'" } else { "" };
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names '{publications}'{binary})",
            quote(slot)
        );
        self.send(&command).await?;
        loop {
            match self.messages.next().await? {
                Answer::CopyBoth => break,
                Answer::Ready => return Err(Error::Closed),
                Answer::Authentication(..)
                | Answer::Parameter(..)
                | Answer::RowDescription
                | Answer::Row(_)
                | Answer::Complete
                | Answer::Aside => {}
            }
        }
        Ok(Stream::new(self.messages, from, self.row_bytes_max))
    }

    async fn send(&mut self, sql: &str) -> Result<(), Error> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(Error::io("send a command"))?;
        self.messages.send(&out).await
    }
}

/// Reads the password as it is now: a rotated secret takes effect at the next connect.
pub(super) fn password(target: &Target, config: &Config) -> Result<Option<Secret>, Error> {
    match &config.password {
        Some(reference) => Ok(Some(reference.read()?)),
        None => Ok(target.password.clone()),
    }
}

/// What the session needs, without any change of the server: limits, and a text form that does not depend on settings.
pub(super) fn session_options(target: &Target, config: &Config) -> String {
    let ours = format!(
        "-c wal_sender_timeout={}ms -c logical_decoding_work_mem={}kB -c DateStyle=ISO -c IntervalStyle=iso_8601 \
         -c TimeZone=UTC -c extra_float_digits=3 -c bytea_output=hex",
        config.wal_sender_timeout.as_millis(),
        (config.logical_decoding_work_mem / 1_024).max(64),
    );
    match &target.options {
        Some(options) => format!("{options} {ours}"),
        None => ours,
    }
}

/// Gives how long a connection attempt may take in all.
pub(super) fn attempt_limit(target: &Target, config: &Config) -> Duration {
    config.connect_timeout * u32::try_from(target.hosts.len()).unwrap_or(1)
}

fn cell(rows: &[Vec<Option<String>>], column: usize) -> Option<&str> {
    rows.first()?.get(column)?.as_deref()
}

fn position(rows: &[Vec<Option<String>>], column: usize) -> Lsn {
    cell(rows, column).and_then(|text| text.parse().ok()).unwrap_or(Lsn::ZERO)
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Turns `15.18 (Debian ...)` or `18beta1` into 150000 or 180000.
fn version_number(text: &str) -> u32 {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u32>().unwrap_or_default() * 10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_whatever_the_vendor_writes() {
        for (text, expected) in [("15.18 (Debian 15.18-0+deb12u1)", 150_000), ("18beta1", 180_000), ("", 0)] {
            assert_eq!(version_number(text), expected);
        }
    }

    #[test]
    fn a_name_is_quoted_as_an_identifier() {
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
    }
}
