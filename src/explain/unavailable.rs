//! Codes of exit 69: dependencies.

use super::explanation::Explanation;

pub(super) const ALL: [Explanation; 36] = [
    Explanation {
        number: 6901,
        title: "connection to PostgreSQL failed",
        means: "The connection cannot be established, or it broke. The relay retries with a growing backoff.",
        why: "The server is down, the address or port is wrong, or a firewall or proxy closed the connection.",
        next: "Nothing to do for a short interruption. Else check postgres.url and that the server runs.",
    },
    Explanation {
        number: 6902,
        title: "PostgreSQL did not answer in time",
        means: "Connecting, or a query, took longer than its time limit. The relay retries.",
        why: "The server is overloaded, a lock is held, or packets are lost.",
        next: "Look for locks and load on the server. postgres.connect_timeout limits connecting.",
    },
    Explanation {
        number: 6903,
        title: "server is a standby",
        means: "The server is in recovery, and the relay needs the primary. The relay retries until a primary \
                answers.",
        why: "postgres.url names a standby, or a failover is in progress.",
        next: "Name the primary, or all hosts in postgres.url: the relay finds the primary among them.",
    },
    Explanation {
        number: 6904,
        title: "slot is in use",
        means: "Another connection holds the replication slot. The relay waits as a standby and takes over when the \
                slot is free.",
        why: "Another relay runs on this slot, or a connection of a relay that crashed has not ended yet.",
        next: "Nothing to do for a standby. If the log names another program, stop it or use a slot of its own.",
    },
    Explanation {
        number: 6905,
        title: "PostgreSQL is shutting down",
        means: "The server ends its connections. The relay closes the stream and retries.",
        why: "It is shut down or restarted, or an administrator terminated the session.",
        next: "Nothing to do: the relay resumes when the server is up.",
    },
    Explanation {
        number: 6906,
        title: "PostgreSQL cannot serve the request now",
        means: "The server refuses with an error that passes with time or by an operator's action. The relay \
                retries.",
        why: "It is starting up, has no free connection, replication slot or disk space, is read-only, or gave an \
              error that walrelay does not know.",
        next: "Look at the SQLSTATE and the message, and at the server's log if it lasts.",
    },
    Explanation {
        number: 6907,
        title: "no message from PostgreSQL",
        means: "The replication connection was silent for longer than postgres.wal_sender_timeout. The relay \
                reconnects.",
        why: "The network dropped the connection without notice, or the server hangs.",
        next: "Nothing to do if it is rare. Else check the network and the server.",
    },
    Explanation {
        number: 6908,
        title: "no free replication slot",
        means: "All replication slots of the server are in use. `setup` changed nothing.",
        why: "max_replication_slots is too low, or slots that nobody uses any more were left.",
        next: "Drop unused slots, or raise max_replication_slots and restart PostgreSQL.",
    },
    Explanation {
        number: 6909,
        title: "no free walsender",
        means: "All walsenders of the server are in use, so the relay could not connect.",
        why: "max_wal_senders is too low for the standbys, backups and relays together.",
        next: "Raise max_wal_senders as a superuser and restart PostgreSQL.",
    },
    Explanation {
        number: 6930,
        title: "no broker can be reached",
        means: "No bootstrap server answers. The relay retries.",
        why: "The brokers are down, kafka.brokers is wrong, or one side speaks TLS and the other does not.",
        next: "Check kafka.brokers, [kafka.tls] and [kafka.sasl], and that the brokers run.",
    },
    Explanation {
        number: 6931,
        title: "delivery failed",
        means: "A record was not acknowledged, or the producer failed. The relay retries from the confirmed position \
                with a new producer.",
        why: "A broker failed or changed, or the topic refused the record's timestamp. Nothing is lost, and some \
              events may be repeated.",
        next: "None needed. If it recurs, see the brokers' logs, and compare the clocks if it is about timestamps.",
    },
    Explanation {
        number: 6932,
        title: "topic does not exist",
        means: "The topic of an event does not exist on the brokers.",
        why: "It was not created or was deleted, the topic template is wrong, or the principal lacks Describe on it. \
              walrelay never creates a topic.",
        next: "Run the printed `kafka-topics.sh --create` command, or correct the topic.",
    },
    Explanation {
        number: 6933,
        title: "delivery to Kafka is stalled",
        means: "Kafka has acknowledged nothing for a while, although events wait. This is a warning at first. After \
                source.disconnect_on_stall_after, or after the timeout of a batch when polling, the relay \
                disconnects from PostgreSQL, and it continues when brokers answer.",
        why: "Brokers are down, a partition has no leader, or too few replicas are in sync. /status names the cause \
              if it is known.",
        next: "Bring the brokers up. Nothing is lost: the events stay in PostgreSQL.",
    },
    Explanation {
        number: 6934,
        title: "old requests were not answered",
        means: "The brokers did not answer the requests of a previous producer within the limit, and the relay \
                continues. This is a warning.",
        why: "A broker may still append such a request, so an older record of a key may follow newer ones.",
        next: "Check the order of the keys that were written at that time, and why a broker hangs.",
    },
    Explanation {
        number: 6935,
        title: "no token for Kafka",
        means: "The command of kafka.oauth.token_command gave no valid token. The relay retries.",
        why: "The command failed, took longer than 30 s, or printed neither a JWT nor a JSON object with a token and \
              its expiry.",
        next: "Run the command as walrelay's user and correct it.",
    },
    Explanation {
        number: 6936,
        title: "number of partitions changed",
        means: "A topic has another number of partitions than before. This is a warning, and the relay continues.",
        why: "Somebody added partitions or recreated the topic. Keys move to other partitions, and Kafka keeps no \
              order between the old and the new one.",
        next: "Let consumers finish the old records first if the order across the change matters.",
    },
    Explanation {
        number: 6938,
        title: "topic needs more replicas than it has",
        means: "min.insync.replicas of the topic is larger than its number of replicas.",
        why: "Kafka refuses every record, because so many replicas can never be in sync.",
        next: "Give the topic more replicas, or run the printed `kafka-configs.sh` command.",
    },
    Explanation {
        number: 6939,
        title: "too few replicas in sync",
        means: "A partition has fewer replicas in sync than min.insync.replicas.",
        why: "Brokers are down, or replicas are behind. Kafka refuses records for the partition.",
        next: "Start the brokers that are down. The relay continues by itself.",
    },
    Explanation {
        number: 6947,
        title: "partition without a leader",
        means: "No broker leads a partition of the topic.",
        why: "All brokers with a replica in sync of it are down.",
        next: "Start the brokers that are down. The relay continues by itself.",
    },
    Explanation {
        number: 6948,
        title: "topic cannot be described",
        means: "The brokers do not describe a topic, for another reason than that it is missing or denied.",
        why: "The reason is in the error.",
        next: "See the log of the brokers.",
    },
    Explanation {
        number: 6937,
        title: "waiting for requests of the previous producer",
        means: "A new producer waits until the brokers have answered the requests of the one before. This is a \
                warning.",
        why: "A record that is written earlier might be followed by an older one of its key.",
        next: "Nothing to do if it ends. Else check why a broker does not answer.",
    },
    Explanation {
        number: 6940,
        title: "endpoint refuses connections",
        means: "The HTTP endpoint cannot accept a connection. It tries again.",
        why: "The process has no free file descriptor, or the system has no memory for it.",
        next: "Raise the limit of open files of the process.",
    },
    Explanation {
        number: 6942,
        title: "standard output cannot be written",
        means: "The output of a command cannot be written.",
        why: "The disk or the quota is full, or the device failed. A reader that closes the pipe is no error.",
        next: "Write to another place.",
    },
    Explanation {
        number: 6945,
        title: "PostgreSQL's programs are not installed",
        means: "A throwaway PostgreSQL cannot be started because initdb and pg_ctl were not found.",
        why: "`walrelay demo` and the library's test servers need them.",
        next: "Install PostgreSQL, or set WALRELAY_PG_BIN to the directory of its programs.",
    },
    Explanation {
        number: 6946,
        title: "throwaway server cannot be started",
        means: "A throwaway PostgreSQL or the in-process Kafka failed to start.",
        why: "The temporary directory is not writable, or the program failed with the output in the error.",
        next: "Make the temporary directory writable, or set TMPDIR to another one.",
    },
    Explanation {
        number: 6950,
        title: "transaction of the application was aborted",
        means: "PostgreSQL aborted the transaction in which an event was written, through no fault of the row.",
        why: "A conflict, a deadlock, a limit, a restart of the server or a read-only node.",
        next: "Roll back and run the transaction again.",
    },
    Explanation {
        number: 6951,
        title: "connection of the application failed",
        means: "The connection on which the library writes an event broke or cannot be used.",
        why: "The server or the network failed, or the client was closed.",
        next: "Roll back and run the transaction again on a new connection.",
    },
    Explanation {
        number: 6952,
        title: "topic cannot be created",
        means: "The brokers refused to create a topic for `setup --with-topics`. What was created before it stays.",
        why: "The replication factor is larger than the number of brokers, a policy of the brokers forbids the size, \
              or a topic with a similar name exists. The error is the brokers'.",
        next: "Correct --partitions, --replication-factor and --min-insync-replicas, or run the printed command.",
    },
    Explanation {
        number: 6970,
        title: "topics of the consumer do not exist",
        means: "A topic or dead-letter topic that the consumer needs does not exist, or its principal lacks Describe \
                on it.",
        why: "The consumer creates no topics.",
        next: "Create them, or grant Describe on them.",
    },
    Explanation {
        number: 6971,
        title: "consumer's Kafka client failed",
        means: "The Kafka client of the consumer failed and cannot continue.",
        why: "librdkafka reported a fatal error, which is the cause in the error.",
        next: "Start the consumer again: it continues at the committed offsets.",
    },
    Explanation {
        number: 6980,
        title: "dead-letter topic cannot be used",
        means: "A dead-letter topic cannot be read, or a record cannot be written now.",
        why: "The brokers do not answer, the topic does not exist, or Read or Write on it is missing.",
        next: "Check [kafka], the name of the topic and the permissions, then run the command again: what was \
               redriven is skipped.",
    },
    Explanation {
        number: 6981,
        title: "topics cannot be followed",
        means: "`walrelay tail` cannot read the topics from the brokers.",
        why: "The brokers are down, or the log-in or the permissions Describe and Read are missing.",
        next: "Run `walrelay check`, which names what is wrong with the brokers and the log-in.",
    },
    Explanation {
        number: 6982,
        title: "no topic to follow",
        means: "The brokers have none of the topics that `walrelay tail` would follow: those of the configuration, or \
                those of `--topic`.",
        why: "They are not created yet, the name is wrong, or the permission Describe is missing.",
        next: "Run `walrelay check`, which prints the command that creates a missing topic.",
    },
    Explanation {
        number: 6984,
        title: "topic of the publisher does not exist",
        means: "The topic of a published event does not exist. The event is not in Kafka.",
        why: "The publisher creates no topics.",
        next: "Create the topic with the printed command, then publish the event again.",
    },
    Explanation {
        number: 6985,
        title: "event was not sent",
        means: "An event was not handed to Kafka's client within delivery_timeout. It is not in Kafka.",
        why: "The queue was full because the brokers did not answer, or there was no client.",
        next: "Publish the same envelope again. If it recurs, check the brokers.",
    },
    Explanation {
        number: 6986,
        title: "event was not acknowledged in time",
        means: "No acknowledgment came within delivery_timeout. The event may be in Kafka, now or later.",
        why: "The brokers are slow or down.",
        next: "Publish the same envelope again: it keeps the event id, and a consumer's inbox recognizes a \
               repetition.",
    },
];
