//! Decodes what is behind the slot.

use std::time::Duration;

use futures_core::Stream as _;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use crate::lsn::Lsn;
use crate::relay::catalog;
use crate::relay::error::Error as RelayError;
use crate::relay::peek::pending::Collection;
use crate::relay::postgres;
use crate::relay::postgres::Ordinary;
use crate::relay::postgres::quote;
use crate::relay::publish;
use crate::relay::record::route::Route;
use crate::relay::settings::Settings;
use crate::relay::stream::holder;
use crate::relay::stream::position;

use super::decoder::Decoder;
use super::error::Error;

/// The messages of a transaction beside its events, and one event more: a large transaction behind the wanted events is
/// not decoded.
const FURTHER_MESSAGES: usize = 4;
/// If these messages were too few, so many times more are decoded.
const GROWTH: i32 = 8;
/// The bytes of a frame besides its row.
const FRAME_SLACK: usize = 64 << 10;
/// The timeout of the checks.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// How much longer than the server the client waits.
const GRACE: Duration = Duration::from_secs(2);
const ACTION: &str = "decode what is behind the slot";

/// One slot, after the checks of `run`.
struct Reader<'a> {
    ordinary: &'a Ordinary,
    settings: &'a Settings,
    routes: Vec<Route>,
    /// The payload is requested in binary form.
    wants_binary: bool,
    /// After a crash of the server its slot may be behind the stored position, up to which all is delivered.
    delivered: Lsn,
    limit: Duration,
}

/// Collects the events behind the slot.
pub(super) async fn collect(
    ordinary: &Ordinary,
    settings: &Settings,
    max_events: usize,
    limit: Duration,
) -> Result<Collection, Error> {
    let reader = Reader::check(ordinary, settings, limit).await?;
    let first = max_events.saturating_add(FURTHER_MESSAGES);
    let mut max_messages = i32::try_from(first).unwrap_or(i32::MAX);
    loop {
        let (collection, messages) = reader.pass(max_messages, max_events).await?;
        // The server ends at the number only if there is more.
        if collection.is_full() || messages < max_messages || max_messages == i32::MAX {
            return Ok(collection);
        }
        max_messages = max_messages.saturating_mul(GROWTH);
    }
}

impl<'a> Reader<'a> {
    async fn check(ordinary: &'a Ordinary, settings: &'a Settings, limit: Duration) -> Result<Self, Error> {
        let (client, source) = (&ordinary.client, &settings.source);
        let routes = settings.routes()?;
        let facts = reading(ordinary, async {
            Ok(catalog::verify(client, &source.slot, &source.publication, &routes).await.map_err(RelayError::from)?)
        });
        let wants_binary = facts.await?.wants_binary;
        let stored = reading(ordinary, async {
            let stored = position::load(client, &source.slot).await.map_err(RelayError::from)?;
            let system_id = position::system_id(client).await.map_err(RelayError::from)?;
            Ok(stored.is_of(&system_id).map_or(Lsn::ZERO, |()| stored.position))
        });
        // Without the row, or the right to read it, the slot's own position counts.
        let delivered = if source.store_position { stored.await.unwrap_or(Lsn::ZERO) } else { Lsn::ZERO };
        Ok(Self { ordinary, settings, routes, wants_binary, delivered, limit })
    }

    /// Decodes so many messages, rounded up to whole transactions by the server. Gives their number.
    async fn pass(&self, max_messages: i32, max_events: usize) -> Result<(Collection, i32), Error> {
        let Self { ordinary, settings, limit, .. } = self;
        let max_row_bytes = usize::try_from(settings.postgres.max_row_bytes).unwrap_or(usize::MAX);
        let kafka = publish::Settings::new(settings.kafka.clone(), settings.relay.name.clone(), u64::MAX);
        let limits = (max_row_bytes.saturating_add(FRAME_SLACK), kafka.max_record_bytes());
        let mut decoder = Decoder::new(self.routes.clone(), limits, self.delivered, Collection::new(max_events));
        let limit = *limit + GRACE;
        let decoded = tokio::time::timeout(limit, self.decode(max_messages, &mut decoder)).await;
        let late = || RelayError::postgres(ACTION)(postgres::Error::NoAnswer { limit });
        match decoded.unwrap_or_else(|_| Err(late().into())) {
            // The rest of the answer may be long, and the connection ends now.
            Ok(messages) if decoder.is_full() => Ok((decoder.into_collection(), messages)),
            Ok(messages) => {
                roll_back(ordinary).await?;
                Ok((decoder.into_collection(), messages))
            }
            Err(error) => Err(self.explained(error).await),
        }
    }

    async fn decode(&self, max_messages: i32, decoder: &mut Decoder) -> Result<i32, Error> {
        let (client, source) = (&self.ordinary.client, &self.settings.source);
        let failed = RelayError::postgres::<tokio_postgres::Error>(ACTION);
        client.batch_execute(&self.begin()).await.map_err(&failed)?;
        let sql = "SELECT data FROM pg_logical_slot_peek_binary_changes($1::text::name, NULL, $2, 'proto_version', '1',
                                                                        'publication_names', $3, 'binary', $4)";
        let (publication, binary) = (quote(&source.publication), self.wants_binary.to_string());
        let values: [(&(dyn ToSql + Sync), Type); 4] = [
            (&source.slot, Type::TEXT),
            (&max_messages, Type::INT4),
            (&publication, Type::TEXT),
            (&binary, Type::TEXT),
        ];
        let rows = client.query_typed_raw(sql, values).await.map_err(&failed)?;
        let (mut rows, mut messages) = (std::pin::pin!(rows), 0);
        while let Some(row) = std::future::poll_fn(|context| rows.as_mut().poll_next(context)).await {
            let row = row.map_err(&failed)?;
            messages += 1;
            decoder.take(row.try_get(0).map_err(&failed)?).map_err(RelayError::from)?;
            if decoder.is_full() {
                break;
            }
        }
        Ok(messages)
    }

    /// Begins a transaction with the output formats of the replication connection of `run`.
    fn begin(&self) -> String {
        let work_mem = self.settings.postgres.logical_decoding_work_mem >> 10;
        // As for the replication connection.
        let work_mem = work_mem.clamp(64, i32::MAX.unsigned_abs().into());
        format!(
            "{}; SET LOCAL logical_decoding_work_mem = {work_mem}; SET LOCAL DateStyle = ISO; \
             SET LOCAL IntervalStyle = iso_8601; SET LOCAL TimeZone = UTC; SET LOCAL extra_float_digits = 3; \
             SET LOCAL bytea_output = hex",
            self.ordinary.begin_reading(self.limit)
        )
    }

    /// Names the holder of a slot in use, and the timeout.
    async fn explained(&self, error: Error) -> Error {
        let Error::Relay(RelayError::Postgres { source, .. }) = &error else { return error };
        let slot = self.settings.source.slot.clone();
        if source.is_slot_active() {
            let (client, pid) = (&self.ordinary.client, source.slot_holder().unwrap_or_default());
            let found = async {
                roll_back(self.ordinary).await?;
                reading(self.ordinary, async { Ok(holder::of_slot(client, &slot).await?) }).await
            };
            let holder = found.await.ok().flatten();
            let holder = holder.map_or_else(|| format!("a connection (PID {pid})"), |holder| holder.to_string());
            return Error::Held { slot, holder };
        }
        // query_canceled: the timeout of the statement.
        if source.state() == Some("57014") || matches!(source, postgres::Error::NoAnswer { .. }) {
            return Error::Slow { slot, limit: self.limit };
        }
        error
    }
}

/// Reads in a transaction of its own, for a limited time.
async fn reading<T>(ordinary: &Ordinary, queries: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let begin = ordinary.begin_reading(CHECK_LIMIT);
    let done = tokio::time::timeout(CHECK_LIMIT, async {
        ordinary.client.batch_execute(&begin).await.map_err(RelayError::postgres(ACTION))?;
        queries.await
    });
    let late = || RelayError::postgres(ACTION)(postgres::Error::NoAnswer { limit: CHECK_LIMIT });
    let done = done.await.unwrap_or_else(|_| Err(late().into()));
    let ended = roll_back(ordinary).await;
    // The first error is the cause.
    let done = done?;
    ended.map(|()| done)
}

async fn roll_back(ordinary: &Ordinary) -> Result<(), Error> {
    let ended = postgres::within(CHECK_LIMIT, ordinary.client.batch_execute("ROLLBACK")).await;
    ended.map_err(|error| RelayError::postgres(ACTION)(error).into())
}
