//! Codes of exit 66, 71 and 75: the position, where it is stored, and stops that were not complete.

use super::explanation::Explanation;

pub(super) const ALL: [Explanation; 22] = [
    Explanation {
        number: 6601,
        title: "replication slot does not exist",
        means: "The slot of source.slot is not on this server.",
        why: "Nothing was set up yet; or the slot was dropped, or a standby without it was promoted. The server may \
              have removed WAL since then.",
        next: "On a new installation run `walrelay setup --apply`. If the slot existed before, add \
               `--accept-gap`, and before you start the relay, compare the rows that were committed before the \
               position that it prints with Kafka.",
    },
    Explanation {
        number: 6602,
        title: "replication slot is lost",
        means: "The slot is invalidated: PostgreSQL removed WAL that it needed, so events after its position cannot \
                be read from it.",
        why: "It retained more than max_slot_wal_keep_size, was idle for too long, or conflicted on a standby.",
        next: "Drop the slot, raise max_slot_wal_keep_size, and run `walrelay setup --apply --accept-gap`. Before you \
               start the relay, compare the rows that were committed before the position that it prints with Kafka.",
    },
    Explanation {
        number: 6603,
        title: "events may have passed unseen",
        means: "The publication or a table was changed, and events that were committed meanwhile may not have been \
                published.",
        why: "The error names the change and the two WAL positions. It is reported even if everything is right again.",
        next: "Compare the rows that were committed between the two positions with Kafka, then run `walrelay setup \
               --apply --accept-gap`.",
    },
    Explanation {
        number: 6604,
        title: "slot may be invalidated soon",
        means: "At its growth, the retained WAL reaches max_slot_wal_keep_size within \
                source.warn_before_invalidation. This is a warning, and the relay continues.",
        why: "Kafka is slow or down, or the database writes more than the relay can send.",
        next: "Raise max_slot_wal_keep_size, or remove the cause that /status names, before the time in the warning \
               is over.",
    },
    Explanation {
        number: 6610,
        title: "stored position is of another server",
        means: "The row with the stored position was written on another PostgreSQL cluster.",
        why: "The database was restored from a dump, or postgres.url names another server.",
        next: "Correct postgres.url. After a restore run `walrelay setup --apply --accept-gap`. Before you start the \
               relay, compare the rows that were committed before the position that it prints with Kafka.",
    },
    Explanation {
        number: 6611,
        title: "slot is ahead of the stored position",
        means: "The slot's confirmed position is after the one that the relay has stored.",
        why: "The relay stores a position before it confirms it, so another client has moved or recreated the slot. \
              Events between the two positions may be missing in Kafka.",
        next: "Compare the outbox table with Kafka between the two positions, then run `walrelay setup --apply \
               --accept-gap`.",
    },
    Explanation {
        number: 6612,
        title: "server is behind the stored position",
        means: "The server's WAL ends before the position that the relay has stored.",
        why: "The server was restored to an earlier time, or a standby that had not received everything was promoted. \
              Kafka may have events that this server does not have.",
        next: "Run `walrelay setup --apply --accept-gap`. Before you start the relay, compare the rows that were \
               committed before the position that it prints with Kafka.",
    },
    Explanation {
        number: 6620,
        title: "slot was dropped after events were read",
        means: "`setup` found a stored position for a slot that does not exist any more.",
        why: "A new slot starts at the current end of the WAL, so events after the stored position may be missing in \
              Kafka.",
        next: "Run `walrelay setup --apply --accept-gap`. Before you start the relay, compare the rows that were \
               committed before the position that it prints with Kafka.",
    },
    Explanation {
        number: 6621,
        title: "teardown would leave events undelivered",
        means: "`walrelay teardown` was refused, because events behind the slot are not confirmed, because it cannot \
                be known whether they are, or because more is lost than what was agreed to. Nothing was dropped.",
        why: "The relay stopped before it had published them, the slot is lost or missing, or the application wrote \
              while teardown waited for the answer. Without the slot nothing publishes them; their rows remain in the \
              outbox table.",
        next: "Stop the application. Run `walrelay run` until `walrelay status` shows no lag, then stop it. If the \
               slot is lost or missing, compare the outbox table with Kafka. If the events are not needed, add \
               `--accept-gap`.",
    },
    Explanation {
        number: 6670,
        title: "records were deleted before they were consumed",
        means: "The offset that the consumer group committed is outside of the partition.",
        why: "The topic's retention deleted records that the group had not read, or the topic was recreated.",
        next: "Find out which events were lost, then set the group's offset, or set OnGap::SkipToEarliest in the \
               application.",
    },
    Explanation {
        number: 6671,
        title: "log of a partition was truncated",
        means: "The partition has other records than those that the group has read, or none at their offsets.",
        why: "A replica that lacked records became leader (unclean leader election).",
        next: "Find out which events were lost, then set the group's offset to where the logs differ, or set \
               OnGap::SkipToEarliest.",
    },
    Explanation {
        number: 7101,
        title: "stored position cannot be read or written",
        means: "A query on walrelay.position failed.",
        why: "The role lacks USAGE on the schema, or SELECT, INSERT or UPDATE on the table; the table does not exist; \
              or the connection failed, which is retried.",
        next: "Run the printed GRANT as the owner of the schema, or `walrelay setup --apply`.",
    },
    Explanation {
        number: 7102,
        title: "no position is stored",
        means: "walrelay.position has no row for this slot.",
        why: "The slot was created by other means, or the row was deleted.",
        next: "Run `walrelay setup --apply`: it adopts the slot at its confirmed position.",
    },
    Explanation {
        number: 7103,
        title: "stored position was changed",
        means: "The row of this slot in walrelay.position was deleted or changed by another session while the relay \
                runs.",
        why: "Two relays with different configurations use one slot name, or somebody edited the row.",
        next: "Find the session that writes to the table, then restart.",
    },
    Explanation {
        number: 7104,
        title: "table of positions is of an earlier version",
        means: "walrelay.position lacks a column that this version needs.",
        why: "An earlier version of walrelay created the table.",
        next: "Run `walrelay setup --apply`: it adds the column and changes nothing else.",
    },
    Explanation {
        number: 7501,
        title: "records not acknowledged at the end",
        means: "The relay stopped, and records in flight were not acknowledged within shutdown.drain.",
        why: "Kafka is slow or down. Nothing is lost: a restart publishes them again.",
        next: "Restart. Raise shutdown.drain to wait longer.",
    },
    Explanation {
        number: 7502,
        title: "stopped without a connection to PostgreSQL",
        means: "The relay stopped while records were not acknowledged or could not be confirmed.",
        why: "PostgreSQL or Kafka was down at that moment. Nothing is lost: the events stay in PostgreSQL.",
        next: "Restart when both are up. These events may be published again.",
    },
    Explanation {
        number: 7503,
        title: "stop took too long",
        means: "The relay stopped after shutdown.drain although every record is acknowledged.",
        why: "The last position was not stored, or a transaction was not read completely. Another session may lock \
              walrelay.position. Nothing is lost.",
        next: "Restart: events since the stored position are published again. Raise shutdown.drain to wait longer.",
    },
    Explanation {
        number: 7570,
        title: "consumer's shutdown timed out",
        means: "Handlers were still running, or offsets were not committed, when the shutdown timeout of the consumer \
                passed.",
        why: "Handlers are slow, or the brokers did not answer. These events are handled again.",
        next: "Raise Config::shutdown_timeout or speed up the handlers, and check the brokers.",
    },
    Explanation {
        number: 7571,
        title: "dead-letter records not written at the end",
        means: "The consumer stopped before records were written to their dead-letter topic.",
        why: "That topic is missing or refuses writes, or its brokers are down. These events are handled again.",
        next: "Check the topic, the permission Write on it and its brokers, then start the consumer again.",
    },
    Explanation {
        number: 7580,
        title: "publisher ended before the acknowledgment",
        means: "The publisher ended before an event was acknowledged. The event may be in Kafka.",
        why: "The application closed or dropped the publisher while events were in flight.",
        next: "Publish the same envelope again: it keeps the event id, and a consumer's inbox recognizes a repetition.",
    },
    Explanation {
        number: 7581,
        title: "events not known to be delivered",
        means: "flush or close of the publisher ended before all events were acknowledged. Each of them may be in \
                Kafka.",
        why: "The brokers are slow or down.",
        next: "Publish the same envelopes again: they keep their event ids.",
    },
];
