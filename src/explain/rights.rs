//! Codes of exit 67: credentials and permissions.

use super::explanation::Explanation;

pub(super) const ALL: [Explanation; 15] = [
    Explanation {
        number: 6701,
        title: "TLS handshake with PostgreSQL failed",
        means: "The connection to PostgreSQL could not be secured.",
        why: "The server's certificate is expired, comes from an unknown authority, or does not contain the host name \
              of postgres.url; or client and server have no TLS version in common.",
        next: "Check postgres.tls.root_cert, and the host name in postgres.url against the names in the certificate.",
    },
    Explanation {
        number: 6702,
        title: "PostgreSQL does not offer TLS",
        means: "The server answered that it does not support TLS, and sslmode requires it.",
        why: "ssl is off in postgresql.conf, or a proxy without TLS answered. walrelay's default for other machines \
              is sslmode=verify-full.",
        next: "Set ssl = on on the server, or sslmode=disable in postgres.url if the network is trusted.",
    },
    Explanation {
        number: 6703,
        title: "authentication method refused",
        means: "walrelay did not accept the way in which the server wants to authenticate.",
        why: "The server asks for the password in clear text or as MD5, does not bind SCRAM to TLS, did not prove \
              that it knows the password, or no password is configured.",
        next: "Do what the next step says for this case.",
    },
    Explanation {
        number: 6704,
        title: "login or permission denied by PostgreSQL",
        means: "PostgreSQL refused the role or one of its statements.",
        why: "The password is wrong, pg_hba.conf has no line for the connection, or LOGIN, REPLICATION or a privilege \
              is missing.",
        next: "Check these with the SQLSTATE in the error: 28P01 is the password, 28000 is pg_hba.conf, 42501 is a \
               privilege. `walrelay setup --role NAME` prints the grants.",
    },
    Explanation {
        number: 6705,
        title: "password for PostgreSQL cannot be read",
        means: "The file or the environment variable of postgres.password cannot be read or is empty.",
        why: "The secret is not mounted, not readable for this user, or the variable is not set. A running relay \
              retries.",
        next: "Write the secret to the place that the error names. `walrelay config validate` checks it.",
    },
    Explanation {
        number: 6720,
        title: "privilege for polling is missing",
        means: "The role cannot read or update the polled table, or read its sequence.",
        why: "Polling needs SELECT on both and UPDATE on published_at.",
        next: "Run the printed GRANT as the owner of the table.",
    },
    Explanation {
        number: 6721,
        title: "row-level security hides rows",
        means: "A row-level security policy hides rows of the polled table from the relay's role.",
        why: "The relay would not see their events and would not publish them.",
        next: "Run the printed ALTER ROLE ... BYPASSRLS as a superuser.",
    },
    Explanation {
        number: 6730,
        title: "permission denied by Kafka",
        means: "Kafka does not allow the relay's principal to write.",
        why: "It lacks Write or Describe on the topic, or IdempotentWrite on the cluster.",
        next: "Grant what the next step names. For a topic walrelay retries until it is granted.",
    },
    Explanation {
        number: 6731,
        title: "authentication at Kafka failed",
        means: "The brokers refuse the credentials.",
        why: "User, password or SASL mechanism are wrong, the token is invalid, or the user does not exist on the \
              brokers.",
        next: "Check [kafka.sasl], or what kafka.oauth.token_command prints, and the user on the brokers.",
    },
    Explanation {
        number: 6732,
        title: "topic may not be created",
        means: "`setup --with-topics` logged in, and the brokers do not allow this principal to create a topic. What \
                was created before it stays.",
        why: "The relay needs no right to create topics, so its principal usually has none.",
        next: "Run the printed command as an administrator of Kafka.",
    },
    Explanation {
        number: 6740,
        title: "application may not write to the outbox",
        means: "The application's role cannot insert into the outbox table.",
        why: "It lacks INSERT on the table or USAGE on its schema.",
        next: "Grant both to the application's role.",
    },
    Explanation {
        number: 6760,
        title: "role does not exist",
        means: "`setup --role` or `--app-role` names a role that this server does not have.",
        why: "The role was not created, or its name is misspelled. Nothing was changed.",
        next: "Run `CREATE ROLE ... LOGIN REPLICATION PASSWORD '...'`, then run setup again.",
    },
    Explanation {
        number: 6761,
        title: "GRANT had no effect",
        means: "`setup --apply` ran a GRANT, and the role still lacks the privilege. What was created before it stays.",
        why: "The role of the connection may use the object, but not grant its privileges. PostgreSQL answers that \
              with a warning and success.",
        next: "Run setup as the owner that the error names, with --admin-url.",
    },
    Explanation {
        number: 6770,
        title: "consumer denied by Kafka",
        means: "The consumer's credentials are refused, or its principal lacks a permission.",
        why: "It needs Read on the topics and the group, and Write on the dead-letter topics. With \
              inbox_retention it also needs DescribeConfigs on the topics.",
        next: "Check the credentials and grant what is missing.",
    },
    Explanation {
        number: 6780,
        title: "publisher denied by Kafka",
        means: "The publisher's credentials are refused, or its principal may not write to the topic.",
        why: "It needs Write and Describe on the topic.",
        next: "Check the credentials and grant both.",
    },
];
