//! Ships orders: a consumer whose handler can receive an event twice and acts once. Its inbox, its shipments and its
//! own events are one transaction of sqlx.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sqlx::PgPool;
use walrelay_events::consumer::Config;
use walrelay_events::consumer::Consumer;
use walrelay_events::consumer::Failure;
use walrelay_events::consumer::InboxRetention;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Payload;
use walrelay_events::consumer::Received;
use walrelay_events::consumer::inbox;
use walrelay_events::consumer::inbox::Once;
use walrelay_events::consumer::typed;
use walrelay_events::event::Envelope;
use walrelay_events::event::EventId;
use walrelay_events::outbox;

use crate::order::ORDER;
use crate::order::OrderEvent;
use crate::order::now;

/// The consumer group, and the name in the inbox.
pub const GROUP: &str = "shipping";
/// The topic of orders. Events that cannot be handled go to `order-events.dlq`.
pub const TOPIC: &str = "order-events";
/// The retention of the inbox: longer than that of the topic, which is seven days.
const INBOX_RETENTION: Duration = Duration::from_secs(8 * 86_400);

/// The shipping department.
pub struct Shipping {
    database: PgPool,
    carrier: Carrier,
    duplicates: AtomicU32,
}

impl Shipping {
    /// Opens the department.
    pub fn new(database: PgPool) -> Self {
        Self { database, carrier: Carrier::default(), duplicates: AtomicU32::new(0) }
    }

    /// Creates the consumer of a department.
    pub fn consumer(self: Arc<Self>, brokers: &str) -> Consumer {
        let mut config = Config::new(brokers, GROUP, &[TOPIC]);
        config.inbox_retention = Some(InboxRetention::For(INBOX_RETENTION));
        let handle = move |received| {
            let shipping = Arc::clone(&self);
            async move { shipping.handle(received).await }
        };
        Consumer::new(config, typed(handle))
    }

    /// Returns the carrier.
    pub const fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// Returns the number of duplicates that the inbox found.
    pub fn duplicates(&self) -> u32 {
        self.duplicates.load(Relaxed)
    }

    /// Handles one event. Any error means retry. An event that can never be handled is dead-lettered.
    async fn handle(&self, received: Received<OrderEvent>) -> Result<Outcome, Failure> {
        let city = match received.event {
            Payload::Event(OrderEvent::OrderCreated { city, .. }) => city,
            // Our own events: nothing to ship. Event types that this version does not know are skipped before.
            Payload::Event(_) | Payload::Unknown(_) | Payload::Tombstone | _ => return Ok(Outcome::Ack),
        };
        let order = received.aggregate_id.ok_or_else(|| Failure::dead_letter("the order has no id"))?;
        let mut tx = self.database.begin().await?;
        // First in the transaction: another consumer of the same event waits here.
        if inbox::sqlx::once(&mut tx, GROUP, &received.event_id).await? == Once::Duplicate {
            self.duplicates.fetch_add(1, Relaxed);
            return Ok(Outcome::Ack);
        }
        let sql = "UPDATE orders SET status = 'shipped' WHERE id = $1 AND status = 'placed'";
        // Otherwise the order was cancelled meanwhile. The inbox row is committed anyway.
        if sqlx::query(sql).bind(&order).execute(&mut *tx).await?.rows_affected() == 1 {
            let parcel = self.carrier.book(&received.event_id, &city).map_err(Refused::into_failure)?;
            let insert = sqlx::query("INSERT INTO shipments (order_id, parcel) VALUES ($1, $2)");
            insert.bind(&order).bind(&parcel).execute(&mut *tx).await?;
            let shipped = OrderEvent::OrderShipped { parcel, shipped_at: now() };
            let envelope = Envelope::new(ORDER, &order, shipped).with_trace(received.trace);
            outbox::sqlx::append(&mut tx, &envelope).await?;
        }
        tx.commit().await?;
        Ok(Outcome::Ack)
    }

    /// Deletes inbox rows that are older than the retention of the topic. Call it regularly.
    pub async fn prune(&self) -> Result<u64, sqlx::Error> {
        let mut connection = self.database.acquire().await?;
        inbox::sqlx::prune(&mut connection, GROUP, INBOX_RETENTION).await
    }
}

/// Stands for the service of a carrier, outside of our transactions. A booking can arrive twice; the event's id is its
/// idempotency key.
#[derive(Default)]
pub struct Carrier {
    calls: AtomicU32,
    has_route_to_atlantis: AtomicBool,
}

/// A carrier refuses.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the carrier does not go to {0}")]
    NotServed(String),
    #[error("the carrier is busy")]
    Busy,
}

impl Refused {
    /// A busy carrier is worth a retry; a missing route is not.
    fn into_failure(self) -> Failure {
        match self {
            Self::NotServed(_) => Failure::dead_letter(self),
            Self::Busy => self.into(),
        }
    }
}

impl Carrier {
    fn book(&self, booking: &EventId, city: &str) -> Result<String, Refused> {
        if city == "Atlantis" && !self.has_route_to_atlantis.load(Relaxed) {
            return Err(Refused::NotServed(city.to_owned()));
        }
        if self.calls.fetch_add(1, Relaxed) % 5 == 4 {
            return Err(Refused::Busy);
        }
        let number = booking.to_string();
        Ok(format!("P-{}", number.get(number.len().saturating_sub(8)..).unwrap_or_default()))
    }

    /// Opens the route to Atlantis.
    pub fn open_route(&self) {
        self.has_route_to_atlantis.store(true, Relaxed);
    }
}
