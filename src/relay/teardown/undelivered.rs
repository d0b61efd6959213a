//! Counts the events behind a slot, without consuming them.

use tokio_postgres::types::Type;

use crate::relay::error::Error as RelayError;
use crate::relay::postgres::Ordinary;
use crate::relay::postgres::quote;
use walrelay_events::fault::chain;

use super::error::Error;
use super::plan::Undelivered;
use super::transaction::reading;

/// The number of messages to decode, rounded up to whole transactions by the server.
const MAX_MESSAGES: i32 = 10_000;

/// Counts the inserts that the slot would send next. An error is a reason not to know.
pub(super) async fn count(ordinary: &Ordinary, slot: &str, publication: &str) -> Undelivered {
    let failed = RelayError::postgres::<tokio_postgres::Error>("decode what is behind the slot");
    // The first byte of pgoutput's Insert message is I.
    let sql = "SELECT count(*) FILTER (WHERE get_byte(data, 0) = ascii('I')), count(*)
               FROM pg_logical_slot_peek_binary_changes($1::text::name, NULL, $3, 'proto_version', '1',
                                                        'publication_names', $2)";
    let (publication, messages) = (quote(publication), MAX_MESSAGES);
    let counted = reading(ordinary, "decode what is behind the slot", async {
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&slot, Type::TEXT), (&publication, Type::TEXT), (&messages, Type::INT4)];
        let row = ordinary.client.query_typed_one(sql, &values).await.map_err(&failed)?;
        let number = |column| row.try_get::<_, i64>(column).map_err(&failed);
        Ok::<_, Error>((number(0)?, number(1)?))
    });
    match counted.await {
        Ok((0, messages)) if messages < i64::from(MAX_MESSAGES) => Undelivered::Nothing,
        Ok((0, messages)) => Undelivered::Unknown(format!("its next {messages} messages have none, and more follow")),
        Ok((events, messages)) => {
            Undelivered::Events { count: events.unsigned_abs(), has_more: messages >= i64::from(MAX_MESSAGES) }
        }
        Err(error) => Undelivered::Unknown(chain(&error)),
    }
}
