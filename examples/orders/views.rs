//! Which items customers look at. A view belongs to no transaction, so it is published without the outbox.

use serde::Serialize;
use walrelay_events::publisher::Config;
use walrelay_events::publisher::Error;
use walrelay_events::publisher::Publisher;

use crate::order::now;

/// The topic of views.
pub const TOPIC: &str = "item-events";

#[derive(Serialize)]
#[serde(tag = "event_type")]
enum ItemEvent {
    ItemViewed { viewed_at: String },
}

/// Publishes views.
pub struct Views {
    publisher: Publisher,
}

impl Views {
    /// Connects in the background.
    pub fn new(brokers: &str) -> Result<Self, Error> {
        Ok(Self { publisher: Publisher::new(Config::new(brokers, "shop"))? })
    }

    /// Publishes a view. It does not wait until Kafka has it: `close` reports a view that was not delivered.
    pub async fn add(&self, sku: &str) -> Result<(), Error> {
        drop(self.publisher.enqueue(TOPIC, sku, &ItemEvent::ItemViewed { viewed_at: now() }).await?);
        Ok(())
    }

    /// Waits until Kafka has every view.
    pub async fn close(&self) -> Result<(), Error> {
        self.publisher.close().await
    }
}
