//! Codes of exit 68: events that cannot be published, or handled.

use super::explanation::Explanation;

pub(super) const ALL: [Explanation; 15] = [
    Explanation {
        number: 6801,
        title: "row cannot become a record",
        means: "The value of a column cannot be used for the topic, the key, the headers or the partition of the \
                event.",
        why: "The topic is not a valid name or not an allowed one, a required column is NULL, the headers are not an \
              object of names and values, the topic lacks the row's partition, or the record is larger than \
              message.max.bytes. The error names the event and the reason, and walrelay does not skip it.",
        next: "Correct the routing options, the limit or the topic, then restart. With source.mode = \"poll\" the row \
               itself can be corrected.",
    },
    Explanation {
        number: 6802,
        title: "row is larger than postgres.max_row_bytes",
        means: "A row, or another message of the server, is larger than the limit.",
        why: "The limit protects the relay's memory. walrelay does not skip the row.",
        next: "Raise postgres.max_row_bytes if there is enough memory, then restart.",
    },
    Explanation {
        number: 6803,
        title: "row is larger than PostgreSQL can send",
        means: "PostgreSQL cannot build the message with the row: it exceeds the server's limit of 1 GB for one value \
                in memory.",
        why: "A very large payload causes this already below that size, since it is converted to text.",
        next: "Publish the event by hand and skip its transaction as the next step says.",
    },
    Explanation {
        number: 6804,
        title: "text that cannot be converted",
        means: "A value contains bytes that are invalid in the database's encoding, or a character that has no form \
                in UTF-8.",
        why: "The database has another encoding than UTF-8 and the value was stored unchecked, such as byte 81 in \
              WIN1252; or the data is damaged.",
        next: "With polling correct the value in the table. With the WAL skip its transaction as the next step says, \
               and insert its events again.",
    },
    Explanation {
        number: 6805,
        title: "replication fails at the same position each time",
        means: "The server's replication stream ends with the same error at the same transaction.",
        why: "The error is not of the connection, so a retry does not help. Everything before it is delivered, and \
              nothing after it is confirmed.",
        next: "See the server's log for the cause. If the error is about a row, the next step says how to \
               skip it.",
    },
    Explanation {
        number: 6810,
        title: "event refused by Kafka",
        means: "Kafka refuses the record of one event, and a retry would be refused again.",
        why: "It is larger than max.message.bytes of the topic, chooses a partition that the topic lacks, or violates \
              a policy. walrelay does not skip it.",
        next: "Raise the limit that the error names or correct the topic, then restart.",
    },
    Explanation {
        number: 6830,
        title: "event without a type",
        means: "A consumed record has neither the header event_type nor a tag in its payload.",
        why: "Another program wrote it, or the relay's headers are configured without event_type.",
        next: "Set the header, or the tag in the payload, at the producer.",
    },
    Explanation {
        number: 6831,
        title: "header and payload have different types",
        means: "The header event_type and the tag in the payload of a record differ.",
        why: "The column event_type and the payload were written from different values.",
        next: "Write the same type to both.",
    },
    Explanation {
        number: 6832,
        title: "payload does not match its type",
        means: "The payload of an event lacks a field that the reader's type needs, or has another type of value \
                there.",
        why: "Producer and reader were changed in a way that is not compatible.",
        next: "Compare both types. docs/events.md lists the compatible changes.",
    },
    Explanation {
        number: 6833,
        title: "payload is not an event",
        means: "The value of a record is not a JSON object.",
        why: "Another program wrote it, or the payload was changed on its way.",
        next: "Compare the producer's type with the reader's.",
    },
    Explanation {
        number: 6870,
        title: "too many dead-letter records",
        means: "The consumer stopped because more records were dead-lettered than its budget allows.",
        why: "Mostly a bug in a handler or a change of the events affects all records, not single ones. The last \
              record is handled again.",
        next: "Correct the handler or the events, then start the consumer again. `walrelay dlq list` shows the \
               records.",
    },
    Explanation {
        number: 6871,
        title: "dead-letter topic refuses a record",
        means: "A record could not be written to the dead-letter topic, and a retry does not help.",
        why: "The record is too large for that topic, or the topic is missing or refuses it.",
        next: "Do what the next step says, then start the consumer again: it handles the record again.",
    },
    Explanation {
        number: 6872,
        title: "handler stopped the consumer",
        means: "A handler of the application ended the consumer on purpose.",
        why: "The reason is the handler's own text.",
        next: "Remove the reason, then start the consumer again: it handles the record again.",
    },
    Explanation {
        number: 6880,
        title: "event is too large for the publisher",
        means: "Key, value and headers of an event together exceed message.max.bytes or the publisher's queue.",
        why: "The event is not in Kafka.",
        next: "Raise message.max.bytes under Config::properties and max.message.bytes of the topic, or make the event \
               smaller.",
    },
    Explanation {
        number: 6881,
        title: "event refused by Kafka",
        means: "Kafka refuses the record of an event that the library published.",
        why: "It exceeds a limit of the topic or violates a schema or policy check. The event is not in Kafka.",
        next: "Compare the event with the limits that the next step names.",
    },
];
