//! The shop's database: its tables and a small connection pool.
//!
//! An application uses any pool. The library only needs a transaction: here one of tokio-postgres, in `shipping` one of
//! sqlx.

use std::ops::Deref;
use std::ops::DerefMut;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;
use tokio_postgres::Client;
use tokio_postgres::NoTls;

/// The application's own tables. `walrelay setup --with-outbox` creates the outbox, `inbox::INBOX_SQL` the inbox.
pub const TABLES: &str = "
    CREATE TABLE orders (
        id       text PRIMARY KEY,
        customer text NOT NULL,
        city     text NOT NULL,
        items    jsonb NOT NULL,
        total    numeric(12, 2) NOT NULL,
        currency text NOT NULL,
        status   text NOT NULL DEFAULT 'placed'
    );
    CREATE TABLE shipments (
        order_id text NOT NULL REFERENCES orders,
        parcel   text NOT NULL
    );";

/// Connections to the database.
pub struct Database {
    url: String,
    idle: Mutex<Vec<Client>>,
    free: Semaphore,
}

/// A connection that is returned to the pool when this is dropped.
pub struct Connection<'d> {
    client: Option<Client>,
    database: &'d Database,
    _permit: SemaphorePermit<'d>,
}

impl Database {
    /// Prepares at most this many connections. Each is opened when it is first needed.
    pub fn new(url: String, connections_max: usize) -> Self {
        Self { url, idle: Mutex::default(), free: Semaphore::new(connections_max) }
    }

    /// Returns a connection, and waits for one if all are in use. A broken one is replaced.
    pub async fn connection(&self) -> Result<Connection<'_>, tokio_postgres::Error> {
        let permit = self.free.acquire().await.expect("the semaphore is never closed");
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let client = match idle.filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
                // It ends when the client is dropped. Its errors are returned by the client.
                tokio::spawn(connection);
                client
            }
        };
        Ok(Connection { client: Some(client), database: self, _permit: permit })
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.database.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.client.take());
    }
}

impl Deref for Connection<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client.as_ref().expect("it is there until the drop")
    }
}

impl DerefMut for Connection<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        self.client.as_mut().expect("it is there until the drop")
    }
}
