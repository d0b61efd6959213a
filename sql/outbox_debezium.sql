-- The outbox of the debezium preset: the table that Debezium's outbox event router expects.
CREATE TABLE IF NOT EXISTS public.outbox (
    id             uuid         PRIMARY KEY DEFAULT gen_random_uuid(),
    aggregatetype  varchar(255) NOT NULL,
    aggregateid    varchar(255) NOT NULL,
    type           varchar(255) NOT NULL,
    payload        jsonb
);
