//! An application without walrelay's library: plain SQL, a business row and its event in one transaction.

use tokio::runtime::Runtime;
use tokio_postgres::Client;
use tokio_postgres::NoTls;

use super::error::Error;

const CUSTOMERS: [&str; 4] = ["Ada", "Edgar", "Grace", "Barbara"];

/// A connection that writes orders.
pub(super) struct Application(Client);

impl Application {
    pub(super) fn connect(runtime: &Runtime, url: &str) -> Result<Self, Error> {
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls)).map_err(Error::Write)?;
        runtime.spawn(connection);
        let table = "CREATE TABLE orders (id text PRIMARY KEY, customer text, total numeric, status text)";
        runtime.block_on(client.batch_execute(table)).map_err(Error::Write)?;
        Ok(Self(client))
    }

    /// Writes one order, and ships every second one at once. Returns the number of events.
    pub(super) fn order(&mut self, runtime: &Runtime, number: u32) -> Result<usize, Error> {
        runtime.block_on(self.write(number)).map_err(Error::Write)
    }

    async fn write(&mut self, number: u32) -> Result<usize, tokio_postgres::Error> {
        let id = format!("o-{number}");
        let customer = CUSTOMERS.into_iter().cycle().nth(number as usize).unwrap_or_default();
        let cents = 1_000 + u64::from(number) * 737 % 9_000;
        let total = format!("{}.{:02}", cents / 100, cents % 100);
        let payload = format!(r#"{{"order":"{id}","customer":"{customer}","total":"{total}","currency":"EUR"}}"#);
        let trace = format!(r#"{{"traceparent":"00-{number:032x}-{number:016x}-01"}}"#);

        let transaction = self.0.transaction().await?;
        let order = "INSERT INTO orders VALUES ($1, $2, $3::text::numeric, 'new')";
        transaction.execute(order, &[&id, &customer, &total]).await?;
        let event = "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload, headers)
                     VALUES ('Order', $1, $2, $3::text::jsonb, $4::text::jsonb)";
        transaction.execute(event, &[&id, &"OrderCreated", &payload, &trace]).await?;
        transaction.commit().await?;
        if number % 2 == 1 {
            return Ok(1);
        }
        let transaction = self.0.transaction().await?;
        transaction.execute("UPDATE orders SET status = 'shipped' WHERE id = $1", &[&id]).await?;
        let payload = format!(r#"{{"order":"{id}","carrier":"post"}}"#);
        transaction.execute(event, &[&id, &"OrderShipped", &payload, &trace]).await?;
        transaction.commit().await?;
        Ok(2)
    }
}
