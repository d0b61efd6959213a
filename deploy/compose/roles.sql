-- The relay's role; `walrelay setup --role walrelay` grants it what else it needs.
CREATE ROLE walrelay LOGIN REPLICATION PASSWORD 'walrelay';
