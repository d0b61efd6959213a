//! An application's database: writers that commit, roll back and interleave, and the truth about what was committed.

use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::Client;
use tokio_postgres::NoTls;
use walrelay::lsn::Lsn;

use super::reader::Truth;

/// A connection for a test's own statements.
pub struct Sql {
    runtime: Runtime,
    client: Client,
}

impl Sql {
    pub fn connect(url: &str) -> Self {
        Self::try_connect(url).unwrap()
    }

    /// Connects to a server that may not be there.
    pub fn try_connect(url: &str) -> Result<Self, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls))?;
        runtime.spawn(connection);
        Ok(Self { runtime, client })
    }

    pub fn run(&self, sql: &str) {
        self.try_run(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Runs what a shutdown of the server may end.
    pub fn try_run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.batch_execute(sql))
    }

    pub fn text(&self, sql: &str) -> String {
        let row = self.runtime.block_on(self.client.query_one(sql, &[])).unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    pub fn lsn(&self, sql: &str) -> Lsn {
        self.text(&format!("SELECT ({sql})::text")).parse().unwrap()
    }

    /// Gives the end of the WAL: that of its last record. At the beginning of a page the server's function gives the
    /// place behind the page's header, which nothing ends at.
    pub fn wal_end(&self) -> Lsn {
        let next = self.lsn("SELECT pg_current_wal_insert_lsn()");
        self.lsn(&format!(
            "SELECT pg_lsn '{next}' - CASE WHEN mod(pg_lsn '{next}' - '0/0', 8192) IN (24, 40)
                                           THEN mod(pg_lsn '{next}' - '0/0', 8192) ELSE 0 END"
        ))
    }

    /// Gives what the slot has confirmed.
    pub fn confirmed(&self) -> Lsn {
        self.lsn("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'walrelay'")
    }

    /// Waits until the slot has confirmed a position.
    pub fn await_confirmed(&self, position: Lsn, limit: Duration) {
        let began = std::time::Instant::now();
        while self.confirmed() < position {
            assert!(began.elapsed() < limit, "{} is confirmed after {limit:?}, not {position}", self.confirmed());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until everything that was committed before is confirmed. The relay's own row is the last thing in the WAL
    /// of an idle server, and the relay does not store a position to confirm that: a transaction of ours follows it.
    pub fn await_all_confirmed(&self, limit: Duration) {
        let end = self.wal_end();
        self.run("SELECT txid_current()");
        self.await_confirmed(end, limit);
    }

    /// Makes the tables that the writers use beside the outbox.
    pub fn prepare(&self) {
        self.run(
            "CREATE TABLE IF NOT EXISTS truth (key text, version bigint, event_id uuid, PRIMARY KEY (key, version));
             CREATE TABLE IF NOT EXISTS keys (key text PRIMARY KEY, version bigint NOT NULL);
             CREATE TABLE IF NOT EXISTS other (id bigserial PRIMARY KEY, noise text);
             INSERT INTO keys SELECT 'k' || i, 0 FROM generate_series(0, 999) i ON CONFLICT DO NOTHING;
             -- A writer's own key, which it may touch in any order without a deadlock.
             INSERT INTO keys SELECT 'own' || i, 0 FROM generate_series(1, 99) i ON CONFLICT DO NOTHING;
             CREATE OR REPLACE FUNCTION emit(k text) RETURNS void LANGUAGE plpgsql AS $$
             DECLARE v bigint; e uuid := gen_random_uuid();
             BEGIN
                 UPDATE keys SET version = version + 1 WHERE key = k RETURNING version INTO v;
                 INSERT INTO truth VALUES (k, v, e);
                 INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload, headers)
                 VALUES (e, 'Order', k, 'Changed', jsonb_build_object('version', v, 'pad', repeat('x', 100)),
                         '{\"traceparent\": \"00-ab\"}');
             END $$;
             CREATE OR REPLACE PROCEDURE work(seed int, events int, key_count int) LANGUAGE plpgsql AS $$
             DECLARE done int := 0; n int; i int; k text;
             BEGIN
                 PERFORM setseed(seed / 1000.0);
                 WHILE done < events LOOP
                     n := least(1 + floor(random() * 50)::int, events - done);
                     -- One order of keys, so that concurrent writers do not deadlock.
                     FOR k IN SELECT 'k' || floor(random() * key_count)::int FROM generate_series(1, n) ORDER BY 1 LOOP
                         PERFORM emit(k);
                     END LOOP;
                     done := done + n;
                     INSERT INTO other (noise) VALUES (repeat('n', 50));
                     BEGIN
                         -- A savepoint that is rolled back.
                         IF random() < 0.2 THEN
                             PERFORM emit('own' || seed);
                             RAISE EXCEPTION 'undo';
                         END IF;
                     EXCEPTION WHEN raise_exception THEN NULL;
                     END;
                     COMMIT;
                     IF random() < 0.1 THEN
                         -- A transaction that is rolled back.
                         PERFORM emit('own' || seed);
                         ROLLBACK;
                     END IF;
                 END LOOP;
             END $$;",
        );
    }

    /// Reads what was committed, by key, in commit order: a row lock per key makes the versions that order.
    pub fn truth(&self) -> Truth {
        let rows = self
            .runtime
            .block_on(self.client.query("SELECT key, event_id::text FROM truth ORDER BY key, version", &[]))
            .unwrap();
        let mut truth = Truth::new();
        for row in rows {
            truth.entry(row.get(0)).or_default().push(row.get(1));
        }
        truth
    }
}

/// Starts writers that together commit so many events over so many keys.
pub fn writers(url: &str, count: i32, events: i32, keys: i32) -> Vec<JoinHandle<()>> {
    let share = events / count;
    (1..=count)
        .map(|seed| {
            let url = url.to_owned();
            thread::spawn(move || Sql::connect(&url).run(&format!("CALL work({seed}, {share}, {keys})")))
        })
        .collect()
}
