//! Codes of exit 65: publication, tables and slot.

use super::explanation::Explanation;

pub(super) const ALL: [Explanation; 25] = [
    Explanation {
        number: 6501,
        title: "slot cannot be used",
        means: "The replication slot exists, but it is not one that the relay can use.",
        why: "It is physical, temporary, of another output plugin or of another database, or it was created with \
              two_phase. The error says which.",
        next: "Set source.slot to another name; or, if nobody else uses this slot, drop it and run `walrelay setup \
               --apply --accept-gap`.",
    },
    Explanation {
        number: 6502,
        title: "publication does not exist",
        means: "The publication of source.publication is not in this database.",
        why: "Nothing was set up yet, the name is wrong, or somebody dropped it. Events that are committed while it \
              is missing are not published.",
        next: "On a new installation run `walrelay setup --apply`. After a drop add `--accept-gap`, and before you \
               start the relay, compare the rows that were committed before the position that it prints with Kafka.",
    },
    Explanation {
        number: 6503,
        title: "publication leaves out rows or columns",
        means: "The publication does not publish what the relay needs.",
        why: "It publishes other operations than inserts, lacks a table, a column or publish_via_partition_root, or \
              has a row filter. The error names the difference.",
        next: "Run the statement that is printed as the next step.",
    },
    Explanation {
        number: 6504,
        title: "table or column does not match the configuration",
        means: "A table or a column of an [[outbox]] does not exist, has a type that it cannot have, or two objects \
                fit where one is expected.",
        why: "The name in the configuration is wrong, the table is not created yet, or it was renamed.",
        next: "Run the printed statement, or correct the names under [[outbox]]. After a rename list the old name as \
               well, since older WAL has it.",
    },
    Explanation {
        number: 6505,
        title: "object missing in PostgreSQL",
        means: "PostgreSQL refuses a command because an object or a setting that it needs is not there.",
        why: "wal_level is not logical, the database does not exist, the slot is of another database, or the \
              publication did not exist yet when the WAL was written.",
        next: "Do what the error's next step says for this case, then restart.",
    },
    Explanation {
        number: 6506,
        title: "server without failover slots",
        means: "A failover slot was requested from a server that is older than PostgreSQL 17.",
        why: "source.failover is \"on\".",
        next: "Set source.failover to \"auto\" or \"off\".",
    },
    Explanation {
        number: 6507,
        title: "pooler breaks the session",
        means: "A pooler gives each transaction or statement another session, and the relay needs one session.",
        why: "It runs in statement mode, or prepared statements of another session were used.",
        next: "Set pool_mode = session in the pooler, or set postgres.url to PostgreSQL itself.",
    },
    Explanation {
        number: 6508,
        title: "rows of a table are not in the WAL",
        means: "The table is of a kind whose rows do not reach the replication stream completely.",
        why: "It is unlogged, has partitions that are foreign tables, has children by inheritance, or a mapped column \
              is generated. The error says which.",
        next: "Run the printed statement. Rows that were committed before may be missing in Kafka: compare them.",
    },
    Explanation {
        number: 6509,
        title: "optional column was renamed",
        means: "A column that the table need not have, such as the headers, was renamed while its old name is \
                configured.",
        why: "Events would continue without its values, so the relay stops.",
        next: "Set the role to a list of both names, as in headers = [\"new\", \"old\"], and restart.",
    },
    Explanation {
        number: 6510,
        title: "row does not fit its configured columns",
        means: "A table, as it was when the row was written, lacks a configured column, or the column has a type that \
                its role cannot have.",
        why: "A column was renamed, dropped or changed. Older WAL keeps the old names.",
        next: "After a rename list both names under [outbox.columns] and restart. Else correct the column's name or \
               the table.",
    },
    Explanation {
        number: 6511,
        title: "table in no [[outbox]]",
        means: "The publication publishes a table that no [[outbox]] names.",
        why: "The table was renamed, or it was added to the publication for another purpose.",
        next: "Set renamed_from in its [[outbox]], add an [[outbox]] for it, or remove it from the publication.",
    },
    Explanation {
        number: 6512,
        title: "relay counts as a synchronous standby",
        means: "synchronous_standby_names includes this relay.",
        why: "Commits of the application would wait until Kafka has acknowledged their events.",
        next: "List the standbys by name without relay.name, then run `SELECT pg_reload_conf()`.",
    },
    Explanation {
        number: 6513,
        title: "slot is older than its publication",
        means: "The slot exists, and its publication does not.",
        why: "The publication was dropped, and the slot cannot decode WAL from before the publication exists again. \
              Events since the drop are not published.",
        next: "Run `walrelay setup --apply --accept-gap`. Before you start the relay, compare the rows that were \
               committed before the position that it prints with Kafka.",
    },
    Explanation {
        number: 6520,
        title: "table does not fit for polling",
        means: "The table lacks something that source.mode = \"poll\" needs.",
        why: "For example a column or its type, or the sequence does not keep the order: it needs CACHE 1, ascending \
              numbers and no CYCLE. The error names it.",
        next: "Do what the next step says. `walrelay setup` prints the statements.",
    },
    Explanation {
        number: 6521,
        title: "published rows were not marked",
        means: "The UPDATE of published_at changed fewer rows than were published.",
        why: "A trigger, a rule or a row-level security policy stops it. The events are in Kafka and are published \
              again at each start.",
        next: "Remove what stops the UPDATE, then restart.",
    },
    Explanation {
        number: 6522,
        title: "sequence was reset",
        means: "The sequence that numbers the rows is behind the number of an unpublished row.",
        why: "It was reset, for example by a restore or by TRUNCATE with RESTART IDENTITY, so new events would be \
              ordered before old ones.",
        next: "Run the printed statements, which number the later rows after the earlier ones.",
    },
    Explanation {
        number: 6523,
        title: "two events have the same number",
        means: "Two unpublished events of one key have the same number, so their order is unknown.",
        why: "The numbers do not come from one sequence, or were written by hand.",
        next: "Give the later event a higher number, and draw all numbers from one sequence.",
    },
    Explanation {
        number: 6524,
        title: "statement fails at the same rows each time",
        means: "A statement on the polled table fails again at the same place.",
        why: "A trigger, a constraint or a damaged row causes it, not the connection.",
        next: "Look for the object that the message names and correct it, then restart.",
    },
    Explanation {
        number: 6525,
        title: "sequence near its end",
        means: "Most numbers of the sequence are used. The relay continues.",
        why: "At the end of the sequence the application cannot insert events any more.",
        next: "Run the printed statements, which change sequence and column to bigint.",
    },
    Explanation {
        number: 6526,
        title: "table was replaced",
        means: "Another table has the name of the polled table since the relay started.",
        why: "A migration or a restore replaced it. Unpublished rows of the earlier table are not read any more.",
        next: "Publish the rows of the earlier table first, if it exists under another name. A restart polls the new \
               table.",
    },
    Explanation {
        number: 6527,
        title: "column is gone",
        means: "A column that was read before was renamed or dropped while the table is polled.",
        why: "Events would continue without its values, so the relay stops.",
        next: "After a rename list both names under [outbox.columns] and restart. After a drop restart.",
    },
    Explanation {
        number: 6530,
        title: "outbox table of the application is missing",
        means: "The library cannot write an event because the table or a column does not exist or has another type.",
        why: "The table was not created, or the application names another one.",
        next: "Run `walrelay setup --with-outbox --apply`, or pass the existing table and columns to \
               outbox::Outbox::new.",
    },
    Explanation {
        number: 6531,
        title: "row refused by PostgreSQL",
        means: "PostgreSQL refuses the row of an event for its content.",
        why: "A constraint, a trigger or a column's type does not accept it. The error does not quote the row.",
        next: "Check the constraints, triggers and column types of the outbox table.",
    },
    Explanation {
        number: 6540,
        title: "version of PostgreSQL is not supported",
        means: "The server is older than PostgreSQL 14.",
        why: "walrelay needs options of logical replication that older versions lack.",
        next: "Upgrade PostgreSQL to version 14 or later.",
    },
    Explanation {
        number: 6541,
        title: "wal_level is not logical",
        means: "wal_level is replica or minimal, and logical replication needs logical.",
        why: "This is PostgreSQL's default.",
        next: "Run `ALTER SYSTEM SET wal_level = 'logical'` as a superuser and restart PostgreSQL.",
    },
];
