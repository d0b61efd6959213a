//! Ships what was ordered: a consumer whose handler may see an event twice and acts once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use uuid::Uuid;
use walrelay_events::consumer::Config;
use walrelay_events::consumer::Consumer;
use walrelay_events::consumer::Failure;
use walrelay_events::consumer::InboxKeeps;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Payload;
use walrelay_events::consumer::Received;
use walrelay_events::consumer::inbox;
use walrelay_events::consumer::inbox::Once;
use walrelay_events::consumer::typed;
use walrelay_events::event::Envelope;
use walrelay_events::outbox;

use crate::database::Database;
use crate::order::ORDER;
use crate::order::OrderEvent;
use crate::order::now;

/// The consumer group, and the name in the inbox.
pub const GROUP: &str = "shipping";
/// Where orders are told of. What cannot be shipped goes to `order-events.dlq`.
pub const TOPIC: &str = "order-events";
/// How long the inbox remembers: longer than the topic keeps its records, which is seven days.
const INBOX_KEEPS: Duration = Duration::from_secs(8 * 86_400);

/// The shipping department.
pub struct Shipping {
    database: Arc<Database>,
    carrier: Carrier,
    seen_again: AtomicU32,
}

impl Shipping {
    /// Opens the department.
    pub fn new(database: Arc<Database>) -> Self {
        Self { database, carrier: Carrier::default(), seen_again: AtomicU32::new(0) }
    }

    /// Makes the consumer of a department.
    pub fn consumer(self: Arc<Self>, brokers: &str) -> Consumer {
        let mut config = Config::new(brokers, GROUP, &[TOPIC]);
        config.inbox_keeps = Some(InboxKeeps::For(INBOX_KEEPS));
        let handle = move |received| {
            let shipping = Arc::clone(&self);
            async move { shipping.handle(received).await }
        };
        Consumer::new(config, typed(handle))
    }

    /// Gives the carrier.
    pub const fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// Counts the events that came although they had been dealt with.
    pub fn seen_again(&self) -> u32 {
        self.seen_again.load(Relaxed)
    }

    /// Deals with one event. Any error means: try again; only what will never be better is rejected.
    async fn handle(&self, received: Received<OrderEvent>) -> Result<Outcome, Failure> {
        let city = match received.event {
            Payload::Event(OrderEvent::OrderCreated { city, .. }) => city,
            // What we said ourselves, and what this version does not know: nothing to ship.
            Payload::Event(OrderEvent::OrderShipped { .. } | OrderEvent::OrderCancelled { .. })
            | Payload::Unknown(_)
            | Payload::Tombstone => return Ok(Outcome::Done),
        };
        let order = received.aggregate_id.ok_or_else(|| Failure::reject("an order without an id"))?;
        let mut connection = self.database.connection().await?;
        let tx = connection.transaction().await?;
        // First of all, so that whoever has the same event waits here.
        if inbox::once(&tx, GROUP, received.event_id).await? == Once::Seen {
            self.seen_again.fetch_add(1, Relaxed);
            return Ok(Outcome::Done);
        }
        let sql = "UPDATE orders SET status = 'shipped' WHERE id = $1 AND status = 'placed'";
        // Else it was cancelled meanwhile; that this event is dealt with is committed all the same.
        if tx.execute(sql, &[&order]).await? == 1 {
            let parcel = self.carrier.book(received.event_id, &city).map_err(Refused::into_failure)?;
            tx.execute("INSERT INTO shipments (order_id, parcel) VALUES ($1, $2)", &[&order, &parcel]).await?;
            let shipped = OrderEvent::OrderShipped { parcel, shipped_at: now() };
            let envelope = Envelope { trace: received.trace, ..Envelope::new(ORDER, &order, shipped) };
            outbox::append(&tx, &envelope).await?;
        }
        tx.commit().await?;
        Ok(Outcome::Done)
    }

    /// Forgets what no topic can bring again. To be called from time to time.
    pub async fn prune(&self) -> Result<u64, tokio_postgres::Error> {
        inbox::prune(&*self.database.connection().await?, GROUP, INBOX_KEEPS).await
    }
}

/// Stands for the service of a carrier, which knows nothing of our transactions: a booking may come twice, and the event's id
/// says that it is the same one.
#[derive(Default)]
pub struct Carrier {
    calls: AtomicU32,
    goes_to_atlantis: AtomicBool,
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
    /// Busy passes, so it is tried again; a place that nobody goes to does not come nearer.
    fn into_failure(self) -> Failure {
        match self {
            Self::NotServed(_) => Failure::reject(self),
            Self::Busy => self.into(),
        }
    }
}

impl Carrier {
    fn book(&self, booking: Uuid, city: &str) -> Result<String, Refused> {
        if city == "Atlantis" && !self.goes_to_atlantis.load(Relaxed) {
            return Err(Refused::NotServed(city.to_owned()));
        }
        if self.calls.fetch_add(1, Relaxed) % 5 == 4 {
            return Err(Refused::Busy);
        }
        let number = booking.simple().to_string();
        Ok(format!("P-{}", number.get(24..).unwrap_or_default()))
    }

    /// Opens the line to Atlantis.
    pub fn mend(&self) {
        self.goes_to_atlantis.store(true, Relaxed);
    }
}
