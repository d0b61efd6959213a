//! Codes of exit 1: what `check` and `dlq` find.

use super::explanation::Explanation;

pub(super) const ALL: [Explanation; 18] = [
    Explanation {
        number: 101,
        title: "weakness in the configuration",
        means: "The configuration is valid, but it gives up some safety or secrecy, for example a password file that \
                others can read or certificates that are not verified.",
        why: "The finding names the option or the file.",
        next: "Do what it says, or accept it: `walrelay check` fails because of it only with `--strict`.",
    },
    Explanation {
        number: 102,
        title: "unlimited WAL retention",
        means: "max_slot_wal_keep_size is -1, so PostgreSQL keeps all WAL that the slot needs, without a limit.",
        why: "While the relay or Kafka is down, that WAL can fill the disk and stop the database.",
        next: "Run `ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'` with a size that the disk has, then `SELECT \
               pg_reload_conf()`. Beyond it the slot is lost instead.",
    },
    Explanation {
        number: 103,
        title: "role is a superuser",
        means: "The relay logs in as a superuser.",
        why: "It needs LOGIN, REPLICATION and a few grants only, and a stolen password of a superuser gives access to \
              everything.",
        next: "Create a role of its own: `walrelay setup --role walrelay` prints what it needs.",
    },
    Explanation {
        number: 104,
        title: "idle slots are invalidated",
        means: "idle_replication_slot_timeout of PostgreSQL 18 is set.",
        why: "If no relay uses the slot for so long, PostgreSQL invalidates it, and the events of that time are not \
              sent any more.",
        next: "Run `ALTER SYSTEM SET idle_replication_slot_timeout = 0`, then `SELECT pg_reload_conf()`.",
    },
    Explanation {
        number: 105,
        title: "positions are not stored",
        means: "source.store_position is off.",
        why: "After a crash of PostgreSQL more events may be repeated, and a slot that another client moved is not \
              noticed.",
        next: "Set source.store_position = true, then run `walrelay setup --apply`.",
    },
    Explanation {
        number: 106,
        title: "slot in use by another program",
        means: "A connection whose application_name is not relay.name holds the replication slot.",
        why: "It may be another program on the same slot, which takes the events away from this relay, or a relay \
              with another name.",
        next: "Stop that program, or set source.slot to a slot of its own.",
    },
    Explanation {
        number: 107,
        title: "slot close to being lost",
        means: "The slot retains more WAL than max_slot_wal_keep_size, so the next checkpoint may invalidate it.",
        why: "No relay has confirmed anything for a while, or it is too slow for the database.",
        next: "Start `walrelay run` now, or raise max_slot_wal_keep_size and run `SELECT pg_reload_conf()`.",
    },
    Explanation {
        number: 108,
        title: "no index for polling",
        means: "The polled table has no index on its unpublished rows.",
        why: "Each poll then reads the whole table, which becomes slower as the table grows.",
        next: "Run the printed CREATE INDEX statement.",
    },
    Explanation {
        number: 109,
        title: "one replica in sync is enough",
        means: "min.insync.replicas of the topic is 1, although it has three or more replicas.",
        why: "A record is then acknowledged when its leader alone has it. If that broker is lost, acknowledged \
              events are lost.",
        next: "Run the printed `kafka-configs.sh` command, which sets min.insync.replicas=2.",
    },
    Explanation {
        number: 110,
        title: "topic takes smaller records than the relay",
        means: "max.message.bytes of the topic is smaller than the largest record that the relay sends.",
        why: "Events up to that size are accepted by the outbox and refused by the topic, which stops the relay.",
        next: "Run the printed `kafka-configs.sh` command, or lower message.max.bytes under [kafka.properties].",
    },
    Explanation {
        number: 111,
        title: "topic refuses old timestamps",
        means: "message.timestamp.before.max.ms of the topic is shorter than a long outage.",
        why: "Records carry the commit time. After such an outage they get the time of sending instead.",
        next: "Run the printed `kafka-configs.sh` command, or accept it.",
    },
    Explanation {
        number: 112,
        title: "rows with invalid topic names",
        means: "The topic follows from a column of the outbox table, and some rows have a value that gives a name that \
                Kafka cannot have.",
        why: "Allowed are 1 to 249 of A-Z a-z 0-9 . _ - without __ at the beginning. An empty column, a space or a \
              character such as ö is enough.",
        next: "Correct topic under [[outbox]], or the program that writes such rows. The relay stops with WR-6801 at \
               such an event that is not published yet.",
    },
    Explanation {
        number: 180,
        title: "dead-letter record without an origin",
        means: "The headers of a record in the dead-letter topic do not name the topic that it came from.",
        why: "Another program wrote it, or its headers were removed.",
        next: "Give the topic with `--to TOPIC`.",
    },
    Explanation {
        number: 181,
        title: "no dead-letter record matches",
        means: "The dead-letter topic has no record that fits the options.",
        why: "The selection is too narrow, or the records were redriven or deleted before.",
        next: "Run `walrelay dlq list TOPIC --all` to see every dead-letter record.",
    },
    Explanation {
        number: 183,
        title: "dead-letter record refused by its topic",
        means: "Kafka refuses to write this record back to its topic, and another attempt does not help.",
        why: "It may be too large for the topic, or the topic may lack its partition or may be missing.",
        next: "Do what the error names, then redrive again. Other records are not affected.",
    },
    Explanation {
        number: 184,
        title: "dead-letter record held back by its key",
        means: "An earlier record of the same key cannot be redriven, so this one is held back to keep the order of \
                the key.",
        why: "The earlier record has an error of its own in the output.",
        next: "Redrive again when the earlier record is redriven, or select this one alone with `--at`.",
    },
    Explanation {
        number: 185,
        title: "original topic has no valid name",
        means: "The headers of a dead-letter record name a topic that Kafka cannot have.",
        why: "The headers were written or changed by another program.",
        next: "Give the topic with `--to TOPIC`.",
    },
    Explanation {
        number: 186,
        title: "redrive to the dead-letter topic itself",
        means: "The target of a redrive is the dead-letter topic that the records are read from.",
        why: "The records would become dead-letter records that have lost their origin.",
        next: "Give another topic with `--to TOPIC`.",
    },
];
