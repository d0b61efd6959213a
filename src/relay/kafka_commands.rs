//! The commands of Kafka's tools, with the names of this configuration.

use crate::relay::publish;
use crate::relay::publish::TopicSize;
use crate::shell::word;

/// How an administrator reaches the brokers, and whom the relay logs in as.
#[derive(Clone, Debug)]
pub(in crate::relay) struct Commands {
    /// What follows the name of each tool.
    connection: String,
    pub(in crate::relay) principal: String,
}

impl Commands {
    pub(in crate::relay) fn new(kafka: &publish::Config) -> Self {
        let brokers = word(&kafka.brokers.join(","));
        let needs_login = kafka.tls.is_some() || kafka.sasl.is_some() || kafka.oauth.is_some();
        // The tools read the administrator's own credentials from it.
        let login = if needs_login { " --command-config admin.properties" } else { "" };
        let user = kafka.sasl.as_ref().map_or("PRINCIPAL", |sasl| &sasl.username);
        Self { connection: format!("--bootstrap-server {brokers}{login}"), principal: format!("User:{user}") }
    }

    /// With the usual size on so many brokers.
    pub(in crate::relay) fn create(&self, topic: &str, brokers: usize) -> String {
        self.create_with(topic, size(brokers))
    }

    pub(in crate::relay) fn create_with(&self, topic: &str, size: TopicSize) -> String {
        format!(
            "kafka-topics.sh {} --create --if-not-exists --topic {} --partitions {} --replication-factor {} --config \
             min.insync.replicas={}",
            self.connection,
            word(topic),
            size.partitions,
            size.replicas,
            size.min_in_sync
        )
    }

    pub(in crate::relay) fn set(&self, topic: &str, setting: &str) -> String {
        format!(
            "kafka-configs.sh {} --alter --entity-type topics --entity-name {} --add-config {setting}",
            self.connection,
            word(topic)
        )
    }

    pub(in crate::relay) fn grant(&self, topic: &str) -> String {
        format!(
            "kafka-acls.sh {} --add --allow-principal {} --operation Write --operation Describe --topic {}",
            self.connection,
            word(&self.principal),
            word(topic)
        )
    }

    pub(in crate::relay) fn grant_idempotence(&self) -> String {
        format!(
            "kafka-acls.sh {} --add --allow-principal {} --operation IdempotentWrite --cluster",
            self.connection,
            word(&self.principal)
        )
    }
}

/// The usual size of a topic on so many brokers: at most three replicas, of which one may be down.
pub(in crate::relay) fn size(brokers: usize) -> TopicSize {
    let replicas = i32::try_from(brokers.clamp(1, 3)).unwrap_or(3);
    TopicSize { partitions: 6, replicas, min_in_sync: if replicas == 3 { 2 } else { 1 } }
}

/// What helps against a failed connection, by librdkafka's reason.
pub(in crate::relay) fn next(reason: &str, kafka: &publish::Config) -> Option<String> {
    let text = if reason.contains("PLAINTEXT broker listener") {
        "remove [kafka.tls], or set kafka.brokers to the brokers' TLS listener"
    } else if reason.contains("closed by peer") && kafka.tls.is_none() {
        "add [kafka.tls] if the brokers' listener expects TLS, and [kafka.sasl] if it expects a log-in"
    } else if reason.contains("certificate verify failed") || reason.contains("unknown ca") {
        "set kafka.tls.root_cert to the certificate of the authority that signed the brokers' certificates"
    } else {
        return None;
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_the_brokers_and_replicas_of_this_cluster() {
        let kafka = publish::Config { brokers: vec!["a:1".to_owned(), "b:2".to_owned()], ..Default::default() };
        let commands = Commands::new(&kafka);
        assert_eq!(
            commands.create("orders", 5),
            "kafka-topics.sh --bootstrap-server a:1,b:2 --create --if-not-exists --topic orders --partitions 6 \
             --replication-factor 3 --config min.insync.replicas=2"
        );
        assert!(commands.create("orders", 1).ends_with("--replication-factor 1 --config min.insync.replicas=1"));
        assert!(commands.grant("orders").contains("--allow-principal User:PRINCIPAL "));
    }

    #[test]
    fn a_name_is_one_word_of_a_shell() {
        let commands = Commands { connection: String::new(), principal: "User:it's $(id)".to_owned() };
        assert!(commands.create("x;touch pwned", 1).contains("--topic 'x;touch pwned' "));
        assert!(commands.set("a b", "c=1").contains("--entity-name 'a b' "));
        let principal = r"--allow-principal 'User:it'\''s $(id)' ";
        assert!(commands.grant("`id`").contains(principal) && commands.grant("`id`").ends_with("--topic '`id`'"));
        assert!(commands.grant_idempotence().contains(principal));
    }

    #[test]
    fn librdkafkas_reason_of_a_failed_connection_has_a_next_step() {
        let plain = publish::Config::default();
        for (reason, option) in [
            ("SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?", "remove [kafka.tls]"),
            ("Disconnected: connection closed by peer: receive 0 after POLLIN", "add [kafka.tls]"),
            ("SSL handshake failed: certificate verify failed", "kafka.tls.root_cert"),
        ] {
            assert!(next(reason, &plain).unwrap().contains(option), "{reason}");
        }
        assert_eq!(next("Connect to ipv4#127.0.0.1:1 failed: Connection refused", &plain), None);
    }
}
