//! Codes of exit 64: the configuration.

use super::explanation::Explanation;

pub(super) const ALL: [Explanation; 26] = [
    Explanation {
        number: 6401,
        title: "mistakes in the configuration",
        means: "One or more options are unknown, missing or wrong, or the file cannot be read. Nothing was started.",
        why: "Each mistake is printed with its place, what is allowed and the nearest known name.",
        next: "Correct them and run `walrelay config validate`.",
    },
    Explanation {
        number: 6402,
        title: "configuration file exists",
        means: "`walrelay config init` found the file that it would write. It is not changed.",
        why: "Only a new file is written, so that no configuration is lost.",
        next: "Keep it, move it away, or name another file with --config.",
    },
    Explanation {
        number: 6403,
        title: "password in --postgres-url",
        means: "The URL for `walrelay config init` contains a password. Nothing was written.",
        why: "The file would hold it, and the list of processes shows it. A configuration only says where a password \
              is.",
        next: "Write the password into a file and give --postgres-password-file, or name a variable with \
               --postgres-password-env.",
    },
    Explanation {
        number: 6404,
        title: "options that are no valid configuration",
        means: "The options of `walrelay config init` contradict each other, or a value is not allowed. Nothing was \
                written.",
        why: "Each mistake is printed with the option of the configuration that it is about.",
        next: "Correct the options; `walrelay config init --help` describes them.",
    },
    Explanation {
        number: 6405,
        title: "configuration file cannot be written",
        means: "`walrelay config init` cannot create the file.",
        why: "Its folder does not exist, is not writable for this user, or the disk is full.",
        next: "Create the folder, name another file with --config, or save what `walrelay config init --print` prints.",
    },
    Explanation {
        number: 6420,
        title: "invalid connection string",
        means: "postgres.url is neither a valid connection URI nor a valid key/value string, or a parameter has a \
                value that is not allowed.",
        why: "Often the password has a character such as @, / or # that must be written as %40, %2F or %23.",
        next: "Correct postgres.url, or the PG* variable or service that it takes the value from.",
    },
    Explanation {
        number: 6422,
        title: "certificate or key for PostgreSQL cannot be used",
        means: "A file under [postgres.tls], or one that postgres.url names, cannot be read or parsed.",
        why: "It is missing, not readable for this user, not in PEM, encrypted, or the key does not belong to the \
              certificate. A running relay retries, since a file may be missing while it is replaced.",
        next: "Check the file that the error names with `walrelay config validate`.",
    },
    Explanation {
        number: 6423,
        title: "setting refused by PostgreSQL",
        means: "The server rejects a setting that the connection asks for.",
        why: "It comes from `options=` in postgres.url or from PGOPTIONS, or it is postgres.wal_sender_timeout, and \
              this server does not know it or not this value.",
        next: "Correct or remove the setting.",
    },
    Explanation {
        number: 6430,
        title: "Kafka client cannot be configured",
        means: "librdkafka refuses the configuration of the client.",
        why: "A property has a value that does not fit, or a certificate or key under [kafka.tls] cannot be used. A \
              running relay retries, since a file may be missing while it is replaced.",
        next: "Correct [kafka] or [kafka.properties] as the error says.",
    },
    Explanation {
        number: 6431,
        title: "options of [kafka] contradict each other",
        means: "An option of [kafka] cannot be used as it is.",
        why: "For example the brokers are on other machines without [kafka.tls], or `walrelay dlq` was given a \
              configuration with [kafka.oauth].",
        next: "Correct [kafka] as the error says.",
    },
    Explanation {
        number: 6432,
        title: "secret for Kafka cannot be read",
        means: "The password for SASL or for the private key cannot be read.",
        why: "The file is missing, empty or not readable for this user, or the environment variable is not set.",
        next: "Write the secret to the place that the error names. `walrelay config validate` checks it.",
    },
    Explanation {
        number: 6433,
        title: "file of the configuration cannot be read",
        means: "`walrelay check` cannot read a certificate or key that the configuration names.",
        why: "The path is wrong, or the file is not readable for this user.",
        next: "Correct the option, or make the file readable for the user that runs walrelay.",
    },
    Explanation {
        number: 6440,
        title: "address of the endpoints in use",
        means: "The address of http.listen cannot be bound.",
        why: "Another process uses the port, often another relay on the same machine, or the address is not one of \
              this machine.",
        next: "Set http.listen to a free address, or end the other process.",
    },
    Explanation {
        number: 6441,
        title: "[[outbox]] cannot be used",
        means: "The topic template or the key of an [[outbox]] is invalid.",
        why: "A template may contain {id}, {aggregate_type}, {aggregate_id} and {event_type}, and the key is one of \
              these columns.",
        next: "Correct this [[outbox]].",
    },
    Explanation {
        number: 6442,
        title: "failover slot on an old server",
        means: "source.failover is \"on\", and the server is older than PostgreSQL 17.",
        why: "Failover slots exist from PostgreSQL 17 on.",
        next: "Set source.failover = \"auto\", which uses them where the server has them.",
    },
    Explanation {
        number: 6443,
        title: "administrator's URL leads to another database",
        means: "`setup --admin-url` connects to another database than postgres.url. Nothing was changed.",
        why: "A URL without a database leads to the database with the name of its role. Publication, slot and position \
              belong in the database of the outbox table.",
        next: "End the administrator's URL with the database of postgres.url, as in `postgres://postgres@db/shop`.",
    },
    Explanation {
        number: 6444,
        title: "min.insync.replicas is above the replication factor",
        means: "`setup` would create topics to which no record could be written. Nothing was created.",
        why: "A record is acknowledged when min.insync.replicas replicas have it, and a topic has no more than its \
              replication factor. Without --replication-factor a topic gets a replica on each broker, at most three.",
        next: "Lower --min-insync-replicas, or raise --replication-factor.",
    },
    Explanation {
        number: 6450,
        title: "unknown log level",
        means: "log.level contains a word that is not a level.",
        why: "The levels are off, error, warn, info, debug and trace.",
        next: "Write one level, or levels by target such as \"info,walrelay::relay=debug\".",
    },
    Explanation {
        number: 6451,
        title: "invalid log filter",
        means: "A part of log.level has no usable target before its level.",
        why: "A filter is a list of target=level with an optional default level.",
        next: "Write it as in \"info,walrelay::relay=debug\".",
    },
    Explanation {
        number: 6460,
        title: "invalid name of a table or column",
        means: "The application gave the library a name of a table or column that PostgreSQL cannot have.",
        why: "A name has 1 to 63 bytes and no U+0000.",
        next: "Correct the name where the application creates the outbox or the inbox.",
    },
    Explanation {
        number: 6470,
        title: "invalid option of the consumer",
        means: "An option of the library's consumer is invalid, or two options contradict each other.",
        why: "The error names the option.",
        next: "Correct consumer::Config in the application.",
    },
    Explanation {
        number: 6471,
        title: "consumer's Kafka client cannot be configured",
        means: "librdkafka refuses a property of the consumer.",
        why: "The name or value is wrong, or a certificate or key cannot be used.",
        next: "Correct the properties in consumer::Config.",
    },
    Explanation {
        number: 6472,
        title: "inbox retention too short",
        means: "The inbox keeps event ids for a shorter time than a topic keeps records.",
        why: "A record that is read again after that time, for example after offsets were reset, would take effect \
              twice.",
        next: "Raise the retention of the inbox above retention.ms of the topic, or set \
               InboxRetention::ShorterThanTopic.",
    },
    Explanation {
        number: 6473,
        title: "consumer refused by its group",
        means: "The group coordinator refuses this member, and a retry cannot help.",
        why: "Another member took over its group.instance.id, the brokers do not have the assignor of \
              group.remote.assignor, or they do not support the new group protocol.",
        next: "Do what the error's next step says for this reason.",
    },
    Explanation {
        number: 6480,
        title: "invalid option of the publisher",
        means: "An option of the library's publisher is invalid.",
        why: "The error names the option.",
        next: "Correct publisher::Config in the application.",
    },
    Explanation {
        number: 6481,
        title: "publisher's Kafka client cannot be configured",
        means: "librdkafka refuses a property of the publisher.",
        why: "The name or value is wrong, or a certificate or key cannot be used.",
        next: "Correct the properties in publisher::Config.",
    },
];
