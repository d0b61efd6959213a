-- The position up to which every event is known to be in Kafka, and the server for which it is valid.
-- walrelay writes it before it tells PostgreSQL to forget the log up to there.
CREATE SCHEMA IF NOT EXISTS walrelay;

CREATE TABLE IF NOT EXISTS walrelay.position (
    slot             name        PRIMARY KEY,
    system_id        text        NOT NULL,
    timeline         bigint      NOT NULL,
    -- Which incarnation of the slot: where it was when this row was made, and when that was.
    consistent_point pg_lsn      NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    position         pg_lsn      NOT NULL,
    stored_at        timestamptz NOT NULL DEFAULT now(),
    -- When the last relay ended in order; NULL while one is at work, or after one was killed.
    released_at      timestamptz,
    catalog_state    text
) WITH (fillfactor = 10);

-- A table of an earlier build. Without need no lock is taken.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'walrelay.position'::pg_catalog.regclass AND attname = 'released_at') THEN
        ALTER TABLE walrelay.position ADD COLUMN released_at timestamptz;
    END IF;
    -- How publication and tables stood in the catalog when the position was stored: a restart sees what was changed since.
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'walrelay.position'::pg_catalog.regclass AND attname = 'catalog_state') THEN
        ALTER TABLE walrelay.position ADD COLUMN catalog_state text;
    END IF;
END $$;
