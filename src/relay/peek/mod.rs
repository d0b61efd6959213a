//! Shows the events that are not published yet, as the records that they will be. Nothing is consumed or changed.
//!
//! In mode `wal` the server decodes what is behind the slot with the options of `run`, and the same pipeline makes the
//! records. In mode `poll` the unpublished rows are read without locks. In both modes the same checks come first.
//!
//! The server decodes whole transactions, and keeps a large one on its disk (`work_mem`, `temp_file_limit`). The number
//! of messages is limited, and so is the time of each statement. Here at most the shown events are in memory.

mod decoder;
mod error;
pub(super) mod pending;
mod wal;

use std::time::Duration;

use crate::relay::error::Error as RelayError;
use crate::relay::poll::unpublished;
use crate::relay::postgres;
use crate::relay::postgres::Target;
use crate::relay::settings::Mode;
use crate::relay::settings::Settings;

pub use error::Error;
pub use pending::Pending;
pub use pending::PendingRecord;
pub use pending::Place;
pub use pending::Unpublishable;

use pending::Collection;

/// The first pending events.
#[derive(Debug)]
pub struct Peeked {
    pub events: Vec<Pending>,
    /// There are more than these.
    pub has_more: bool,
}

/// Reads at most so many events, with this timeout of each statement.
pub async fn peek(settings: &Settings, max_events: usize, limit: Duration) -> Result<Peeked, Error> {
    let target = Target::resolve(&settings.postgres.url).map_err(RelayError::postgres("read the configuration"))?;
    let name = format!("{} peek", settings.relay.name);
    let ordinary = postgres::connect_shared(&target, &settings.postgres, &name).await;
    let ordinary = ordinary.map_err(RelayError::postgres("connect to PostgreSQL"))?;
    let collection = match settings.source.mode {
        Mode::Wal => Box::pin(wal::collect(&ordinary, settings, max_events, limit)).await?,
        Mode::Poll => {
            let mut collection = Collection::new(max_events);
            Box::pin(unpublished::collect(&ordinary, settings, &mut collection, limit)).await?;
            collection
        }
    };
    let has_more = collection.is_full();
    Ok(Peeked { events: collection.into_events(), has_more })
}
