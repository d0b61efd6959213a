-- The position up to which every event is acknowledged by Kafka, and the server for which it is valid.
-- walrelay writes it before it confirms the position to the slot.
CREATE SCHEMA IF NOT EXISTS walrelay;

CREATE TABLE IF NOT EXISTS walrelay.position (
    slot             name        PRIMARY KEY,
    system_id        text        NOT NULL,
    timeline         bigint      NOT NULL,
    -- The slot's position when this row was created, and when that was.
    consistent_point pg_lsn      NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    position         pg_lsn      NOT NULL,
    stored_at        timestamptz NOT NULL DEFAULT now(),
    -- When the last relay stopped in order; NULL while one is running, and after one was killed.
    released_at      timestamptz,
    catalog_state    text
) WITH (fillfactor = 10);

-- For a table of an earlier version. ALTER TABLE is run only if a column is missing, so usually it takes no lock.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'walrelay.position'::pg_catalog.regclass AND attname = 'released_at') THEN
        ALTER TABLE walrelay.position ADD COLUMN released_at timestamptz;
    END IF;
    -- The publication and the tables in the catalog when the position was stored: a restart detects changes since then.
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'walrelay.position'::pg_catalog.regclass AND attname = 'catalog_state') THEN
        ALTER TABLE walrelay.position ADD COLUMN catalog_state text;
    END IF;
END $$;
