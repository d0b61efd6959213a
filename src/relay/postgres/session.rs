//! A replication connection before it streams.

use crate::lsn::Lsn;

use super::config::Config;
use super::connect;
use super::connect::Connected;
use super::connect::Purpose;
use super::error::Error;
use super::message::Answer;
use super::sql::quote;
use super::stream::Stream;
use super::target::Target;

/// The first version that takes options in parentheses.
const PARENTHESES: u32 = 150_000;
/// The first version with failover slots.
const FAILOVER: u32 = 170_000;

/// A replication connection that accepts commands.
#[derive(Debug)]
pub struct Session {
    connected: Connected,
    max_row_bytes: usize,
}

/// The result of IDENTIFY_SYSTEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SystemIdentity {
    /// The system identifier.
    pub system_id: String,
    pub timeline: u32,
    /// The end of the flushed WAL. The stream must not start here: earlier commits would be skipped.
    pub wal_end: Lsn,
}

/// The result of CREATE_REPLICATION_SLOT.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CreatedSlot {
    /// The slot has every transaction that commits after this position.
    pub consistent_point: Lsn,
}

impl Session {
    /// Connects to the first suitable server of the list.
    pub async fn connect(target: &Target, config: &Config, application_name: &str) -> Result<Self, Error> {
        let connected = connect::connect(target, config, application_name, Purpose::Replication).await?;
        let max_row_bytes = usize::try_from(config.max_row_bytes).unwrap_or(usize::MAX);
        Ok(Self { connected, max_row_bytes })
    }

    /// Runs a command and gives its rows as text. After an error of the server the connection is ready for the next
    /// command.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.connected.query(sql).await
    }

    /// Runs IDENTIFY_SYSTEM.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, Error> {
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        Ok(SystemIdentity {
            system_id: cell(&rows, 0, "system identifier")?.to_owned(),
            timeline: number(cell(&rows, 1, "timeline")?).ok_or(Error::Answer { field: "timeline" })?,
            wal_end: position(&rows, 2)?,
        })
    }

    /// Reads the history file of a timeline: the end of each earlier one.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<String, Error> {
        let rows = self.query(&format!("TIMELINE_HISTORY {timeline}")).await?;
        cell(&rows, 1, "timeline history").map(str::to_owned)
    }

    /// Creates a slot. PostgreSQL waits for every running transaction, so there is no timeout.
    pub async fn create_slot(&mut self, name: &str, failover: bool) -> Result<CreatedSlot, Error> {
        let version = self.server_version();
        if failover && version < FAILOVER {
            return Err(Error::NoFailover { version: version / 10_000 });
        }
        let options = match (version < PARENTHESES, failover) {
            (true, _) => "NOEXPORT_SNAPSHOT",
            (false, false) => "(SNAPSHOT 'nothing')",
            (false, true) => "(SNAPSHOT 'nothing', FAILOVER true)",
        };
        let rows = self.query(&format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {options}", quote(name))).await?;
        Ok(CreatedSlot { consistent_point: position(&rows, 1)? })
    }

    /// Makes a slot one that survives a failover (PostgreSQL 17 and later). It waits while a connection holds
    /// the slot.
    pub async fn enable_failover(&mut self, name: &str) -> Result<(), Error> {
        self.query(&Self::failover_command(name)).await.map(drop)
    }

    /// The replication command of [`Session::enable_failover`].
    #[must_use]
    pub fn failover_command(name: &str) -> String {
        format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", quote(name))
    }

    /// Drops a slot, after it is no longer in use.
    pub async fn drop_slot(&mut self, name: &str) -> Result<(), Error> {
        self.query(&format!("DROP_REPLICATION_SLOT {} WAIT", quote(name))).await.map(drop)
    }

    /// Starts the stream of a slot at a position. Status updates report `reported` until more is confirmed.
    pub async fn start(
        mut self,
        slot: &str,
        (from, reported): (Lsn, Lsn),
        publication: &str,
        binary: bool,
    ) -> Result<Stream, Error> {
        self.connected.command(&start_command(slot, from, publication, binary)).await?;
        loop {
            match self.connected.messages.next().await? {
                Answer::CopyBoth => return Ok(Stream::new(self.connected.messages, reported, self.max_row_bytes)),
                Answer::Parameter(..) | Answer::Ignored => {}
                other @ (Answer::Authentication(..)
                | Answer::Key(_)
                | Answer::RowDescription
                | Answer::Row(_)
                | Answer::Complete
                | Answer::Ready) => return Err(other.unexpected("answer to START_REPLICATION")),
            }
        }
    }

    /// Gives the server's version in the form of `server_version_num`; 0 if it is unknown.
    #[must_use]
    pub fn server_version(&self) -> u32 {
        self.connected.parameter("server_version").map_or(0, version_number)
    }

    /// Gives the PID of the walsender; none if it is unknown.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        let bytes = self.connected.key.as_ref()?.first_chunk()?;
        Some(u32::from_be_bytes(*bytes))
    }

    /// Says whether the connection uses TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.connected.messages.transport.is_tls()
    }
}

fn start_command(slot: &str, from: Lsn, publication: &str, binary: bool) -> String {
    // A list of identifiers inside a string literal: both kinds of quoting apply. The replication grammar has no
    // backslash.
    let publications = quote(publication).replace('\'', "''");
    let binary = if binary { ", binary 'true'" } else { "" };
    let slot = quote(slot);
    format!(
        "START_REPLICATION SLOT {slot} LOGICAL {from} (proto_version '1', publication_names '{publications}'{binary})"
    )
}

fn cell<'a>(rows: &'a [Vec<Option<String>>], column: usize, field: &'static str) -> Result<&'a str, Error> {
    let row = rows.first().ok_or(Error::Answer { field })?;
    row.get(column).and_then(Option::as_deref).ok_or(Error::Answer { field })
}

fn position(rows: &[Vec<Option<String>>], column: usize) -> Result<Lsn, Error> {
    super::ordinary::position(cell(rows, column, "WAL position")?)
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// Turns `15.18 (Debian 15.18-0+deb12u1)` into 150018 and `18beta1` into 180000.
fn version_number(text: &str) -> u32 {
    let leading = |text: &str| {
        let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
        text.get(..digits).and_then(number).unwrap_or_default()
    };
    let minor = text.split_once('.').map_or(0, |(_, minor)| leading(minor));
    leading(text).saturating_mul(10_000).saturating_add(minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_parsed_in_every_vendors_form() {
        let rows =
            [("15.18 (Debian 15.18-0+deb12u1)", 150_018), ("18beta1", 180_000), ("16.3", 160_003), ("", 0), ("é", 0)];
        for (text, expected) in rows {
            assert_eq!(version_number(text), expected, "{text}");
        }
    }

    #[test]
    fn slot_and_publication_are_quoted_for_their_context() {
        let command = start_command("a\"b", Lsn::from_wire(0x16_0000_00FF), "o'r\"d", true);
        assert_eq!(
            command,
            "START_REPLICATION SLOT \"a\"\"b\" LOGICAL 16/FF \
             (proto_version '1', publication_names '\"o''r\"\"d\"', binary 'true')"
        );
    }
}
