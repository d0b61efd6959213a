-- The inbox: which events a consumer has dealt with, written in the transaction of what it did.
CREATE SCHEMA IF NOT EXISTS walrelay;

CREATE TABLE IF NOT EXISTS walrelay.inbox (
    consumer text        NOT NULL,
    event_id uuid        NOT NULL,
    seen_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);

-- For the pruning by age; a block range index costs next to nothing on insert.
CREATE INDEX IF NOT EXISTS inbox_seen_at ON walrelay.inbox USING brin (seen_at);
