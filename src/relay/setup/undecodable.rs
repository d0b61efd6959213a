//! What setup does about WAL that cannot be decoded: before PostgreSQL 18 decoding fails at a change that was written
//! while the publication did not exist. Decoding uses the catalog of that time, so a new publication does not help.
//!
//! Nothing is skipped that can be decoded. `run` delivers the events before it; only if the next change fails, the slot
//! is advanced to the first position where decoding works again. It is searched with temporary copies of the slot: in
//! growing steps, then by bisection. A publication that was dropped twice within one step is treated as dropped once.
//! PostgreSQL 14 also sends transactions without rows; `run` confirms them first, so that there the command must be
//! repeated.

use tokio_postgres::Client;

use crate::lsn::Lsn;
use crate::relay::catalog;
use crate::relay::catalog::Slot;
use crate::relay::catalog::quote;
use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::settings::Settings;
use crate::relay::stream::position;

use super::error::Error;
use super::steps::Steps;
use super::steps::stored;

/// The first version that omits such a change instead of failing.
const SKIPS_MISSING: u32 = 180_000;
/// The first version that omits transactions without rows.
const SKIPS_EMPTY: u32 = 150_000;
/// The number of messages to decode before that version, where the first ones may be of transactions without rows.
const MESSAGES_BEFORE: i32 = 1_000;
/// The first step, one page; each further one is twice as long.
const FIRST_STEP: u64 = 8 << 10;
/// The alignment of WAL records.
const ALIGNMENT: u64 = 8;

/// Advances the slot past WAL that cannot be decoded, if that comes next.
pub(super) async fn pass(Steps { settings, client, report, .. }: &mut Steps<'_>) -> Result<(), Error> {
    let (slot, publication) = (settings.source.slot.as_str(), settings.source.publication.as_str());
    let version = catalog::version(client).await.map_err(RelayError::from)?;
    let found = catalog::find_slot(client, slot, version).await.map_err(RelayError::from)?;
    let Some(found) = found.filter(|_| version < SKIPS_MISSING) else { return Ok(()) };
    // Events before the stored position are delivered, even if the server could not be informed.
    let stored = if settings.source.store_position { stored(client, slot).await? } else { None };
    let from = stored.map_or(found.confirmed, |stored| stored.position.max(found.confirmed));
    let probe = Probe { client, slot, publication, copy: copy_name(slot), messages: 1 };
    let works = if from == found.confirmed {
        decodes(client, slot, publication, 1).await
    } else {
        probe.works_from(from).await
    };
    if works.map_err(failed("decode the next change"))? {
        return Ok(());
    }
    let probe = Probe { messages: if version < SKIPS_EMPTY { MESSAGES_BEFORE } else { 1 }, ..probe };
    let to = probe.first_decodable(from).await.map_err(failed("find the end of the WAL that cannot be decoded"))?;
    let to = advance(client, settings, to).await.map_err(failed("advance the slot"))?;
    report(&format!(
        "WAL from {from} to {to} skipped, since publication {publication} did not exist when it was written: the slot \
         is advanced to {to}, and events committed in between are not published"
    ));
    Ok(())
}

/// Says whether [`pass`] needs copies of the slot.
pub(super) async fn needs_copies(steps: &Steps<'_>, slot: Slot) -> Result<bool, Error> {
    let Steps { settings: Settings { source, .. }, client, session, .. } = steps;
    if session.server_version() >= SKIPS_MISSING {
        return Ok(false);
    }
    // Without the table there is no row; a row of another server is replaced.
    let stored = if source.store_position { position::load(client, &source.slot).await.ok() } else { None };
    if let Some(stored) = stored.filter(|stored| stored.position > slot.confirmed) {
        // A role may lack EXECUTE on pg_control_system(): then the row counts as this server's.
        let system_id = position::system_id(client).await.ok();
        if system_id.is_none_or(|system_id| stored.is_of(&system_id).is_ok()) {
            return Ok(true);
        }
    }
    let works = decodes(client, &source.slot, &source.publication, 1).await;
    works.map(|works| !works).map_err(failed("read the next change"))
}

/// Tests decoding on copies of the slot.
struct Probe<'a> {
    client: &'a Client,
    slot: &'a str,
    publication: &'a str,
    copy: String,
    /// The number of messages to decode.
    messages: i32,
}

impl Probe<'_> {
    /// Gives the first position after this one from which decoding works, or else the end of the WAL.
    async fn first_decodable(&self, from: Lsn) -> Result<Lsn, postgres::Error> {
        let end: Lsn = lsn(self.client, "SELECT pg_current_wal_flush_lsn()::text", &[]).await?;
        let (mut fails, mut step) = (from.to_wire(), FIRST_STEP);
        let mut works = end.to_wire();
        while fails < end.to_wire() {
            let at = fails.saturating_add(step).min(end.to_wire());
            if self.works_from(Lsn::from_wire(at)).await? {
                works = at;
                break;
            }
            (fails, step) = (at, step.saturating_mul(2));
        }
        while works.saturating_sub(fails) > ALIGNMENT {
            let middle = (fails + (works - fails) / 2).next_multiple_of(ALIGNMENT);
            if middle >= works {
                break;
            }
            if self.works_from(Lsn::from_wire(middle)).await? {
                works = middle;
            } else {
                fails = middle;
            }
        }
        Ok(Lsn::from_wire(works))
    }

    async fn works_from(&self, at: Lsn) -> Result<bool, postgres::Error> {
        let copy = "SELECT pg_copy_logical_replication_slot($1::text::name, $2::text::name, true)";
        self.client.execute(copy, &[&self.slot, &self.copy]).await?;
        let advance = "SELECT pg_replication_slot_advance($1::text::name, $2::text::pg_lsn)";
        self.client.execute(advance, &[&self.copy, &at.to_string()]).await?;
        let works = decodes(self.client, &self.copy, self.publication, self.messages).await?;
        // An error drops the temporary slots of its session.
        let drop =
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1::text::name";
        self.client.execute(drop, &[&self.copy]).await?;
        Ok(works)
    }
}

/// Says whether the publication existed when the next change of a slot was written. Any other error, also that another
/// relay holds the slot, counts as yes.
async fn decodes(client: &Client, slot: &str, publication: &str, messages: i32) -> Result<bool, postgres::Error> {
    let sql = "SELECT count(*) FROM pg_logical_slot_peek_binary_changes($1::text::name, NULL, $3, 'proto_version', '1',
                                                                        'publication_names', $2)";
    match client.query_one(sql, &[&slot, &quote(publication), &messages]).await.map_err(postgres::Error::from) {
        Ok(_) => Ok(true),
        Err(error @ postgres::Error::Server(_)) => Ok(!error.is_missing_publication()),
        Err(error) => Err(error),
    }
}

/// Advances the slot and the row in one statement, so that the slot is not ahead. Gives the slot's position.
async fn advance(client: &Client, settings: &Settings, to: Lsn) -> Result<Lsn, postgres::Error> {
    let (slot, to) = (settings.source.slot.as_str(), to.to_string());
    let moved = "SELECT end_lsn FROM pg_replication_slot_advance($1::text::name, $2::text::pg_lsn)";
    if !settings.source.store_position {
        return lsn(client, &format!("SELECT end_lsn::text FROM ({moved}) AS moved"), &[&slot, &to]).await;
    }
    let sql = format!(
        "WITH moved AS ({moved})
         UPDATE walrelay.position SET position = greatest(position, moved.end_lsn), stored_at = now() FROM moved
         WHERE slot = $1::text::name RETURNING moved.end_lsn::text"
    );
    lsn(client, &sql, &[&slot, &to]).await
}

async fn lsn(
    client: &Client,
    sql: &str,
    values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Lsn, postgres::Error> {
    let text: String = client.query_one(sql, values).await?.try_get(0)?;
    postgres::position(&text)
}

fn failed(what: &str) -> impl FnOnce(postgres::Error) -> Error {
    move |source| Error::Statement { what: what.to_owned(), source }
}

/// A slot's name has at most 63 bytes.
fn copy_name(slot: &str) -> String {
    let start: String = slot.chars().take(50).collect();
    format!("{start}_probe")
}
