-- What was run on PostgreSQL 14 to 18 to record the files beside this one. Each statement outside of BEGIN and COMMIT
-- is a transaction.
-- Before it: wal_level = logical, and
--   CREATE TYPE mood AS ENUM ('calm');
--   CREATE TABLE outbox_events (
--       id uuid PRIMARY KEY, event_type text NOT NULL, payload jsonb, data bytea, mood mood, large text
--   );
--   ALTER TABLE outbox_events ALTER large SET STORAGE EXTERNAL;
--   CREATE PUBLICATION golden FOR TABLE outbox_events;
--   SELECT pg_create_logical_replication_slot('golden', 'pgoutput');
--   SELECT pg_replication_origin_create('elsewhere');
-- Afterwards
--   START_REPLICATION SLOT golden LOGICAL 0/0 (proto_version '1', publication_names 'golden', messages 'true')
-- and once more with binary 'true' on a slot of the same age. The files have each CopyData message as it was received
-- after CopyBothResponse, up to the keepalive that a status update had asked for; `78*2100` is 2,100 times this byte.
BEGIN;
INSERT INTO outbox_events VALUES
    ('00000000-0000-0000-0000-000000000001', 'OrderCreated', '{"total": 1}', '\x00ff', 'calm', repeat('x', 2100)),
    ('00000000-0000-0000-0000-000000000002', 'OrderShipped', NULL, NULL, NULL, NULL);
COMMIT;
-- Not published: an empty transaction, which version 14 sends and later ones do not.
CREATE TABLE other (id int);
BEGIN;
UPDATE outbox_events SET event_type = 'OrderPaid' WHERE large IS NOT NULL;
UPDATE outbox_events SET id = '00000000-0000-0000-0000-000000000003' WHERE large IS NULL;
DELETE FROM outbox_events WHERE large IS NULL;
UPDATE outbox_events SET large = NULL;
COMMIT;
ALTER TABLE outbox_events REPLICA IDENTITY FULL;
BEGIN;
SELECT pg_logical_emit_message(true, 'note', 'hello');
DELETE FROM outbox_events;
TRUNCATE outbox_events;
COMMIT;
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/ABCD', '2026-01-01 00:00:00+00');
INSERT INTO outbox_events VALUES ('00000000-0000-0000-0000-000000000004', 'OrderCreated');
COMMIT;
