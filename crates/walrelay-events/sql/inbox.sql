-- The inbox: the events that each consumer has handled. Rows are inserted in the transaction of the handler.
CREATE SCHEMA IF NOT EXISTS walrelay;

CREATE TABLE IF NOT EXISTS walrelay.inbox (
    consumer text        NOT NULL,
    event_id text        NOT NULL COLLATE "C",
    seen_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);

-- For pruning by age. A block range index costs almost nothing on insert.
CREATE INDEX IF NOT EXISTS inbox_seen_at ON walrelay.inbox USING brin (seen_at);
