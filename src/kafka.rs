//! What both halves know of librdkafka's properties: which ones say how brokers are reached, and so are for any client.

/// How such properties begin.
const CONNECTION: [&str; 12] = [
    "bootstrap.",
    "client.dns.",
    "client.id",
    "security.",
    "ssl.",
    "sasl.",
    "socket.",
    "broker.",
    "reconnect.",
    "enable.ssl",
    "https.",
    "resolve.",
];

/// Says whether a property concerns how brokers are reached, not what is produced or consumed.
pub(crate) fn is_of_connections(name: &str) -> bool {
    CONNECTION.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_producers_or_consumers_know_is_not_for_any_client() {
        for name in ["bootstrap.servers", "ssl.ca.location", "sasl.password", "security.protocol", "client.id"] {
            assert!(is_of_connections(name), "{name}");
        }
        for name in ["group.id", "fetch.min.bytes", "client.rack", "linger.ms", "acks", "enable.idempotence", "debug"] {
            assert!(!is_of_connections(name), "{name}");
        }
    }
}
