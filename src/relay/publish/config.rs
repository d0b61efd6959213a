//! The options of `[kafka]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::units::SecretRef;

/// How to reach Kafka.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The brokers to start from, `host:port`.
    pub brokers: Vec<String>,
    /// Send to a broker that is not on this machine without TLS.
    pub allow_plaintext: bool,
    /// TLS towards Kafka; on as soon as the section is there.
    pub tls: Option<Tls>,
    /// Authentication by SASL.
    pub sasl: Option<Sasl>,
    /// How batches are compressed: `"none"`, `"gzip"`, `"snappy"`, `"lz4"` or `"zstd"`.
    pub compression: Compression,
    /// Expose librdkafka's own numbers as `walrelay_kafka_*`: a dozen series for each broker.
    pub metrics: bool,
    /// Any other librdkafka property. The ones that carry a guarantee are refused, with the reason.
    pub properties: BTreeMap<String, String>,
}

/// TLS towards Kafka.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// `"system"`, or a PEM file with the certificate authorities to trust.
    pub root_cert: String,
    /// The client's certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// The client's private key, PEM.
    pub key: Option<PathBuf>,
    /// Where the password of the key comes from.
    pub key_password: Option<SecretRef>,
}

/// Authentication by SASL.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// The user.
    pub username: String,
    /// Where the password comes from. Read again for each new producer.
    pub password: SecretRef,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Mechanism {
    /// The password as it is; only over TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Challenge and response with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Challenge and response with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4, the default.
    #[default]
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: vec!["localhost:9092".to_owned()],
            allow_plaintext: false,
            tls: None,
            sasl: None,
            compression: Compression::default(),
            metrics: false,
            properties: BTreeMap::new(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { root_cert: "system".to_owned(), cert: None, key: None, key_password: None }
    }
}
