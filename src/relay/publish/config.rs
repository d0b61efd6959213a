//! The options of `[kafka]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::units::SecretRef;

/// The connection to Kafka.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The bootstrap servers, each `host:port`.
    pub brokers: Vec<String>,
    /// Connect without TLS to brokers on other machines.
    pub allow_plaintext: bool,
    /// TLS to Kafka; enabled by the section.
    pub tls: Option<Tls>,
    /// Authentication by SASL.
    pub sasl: Option<Sasl>,
    /// Authentication by OAuth tokens (SASL OAUTHBEARER).
    pub oauth: Option<Oauth>,
    /// `"none"`, `"gzip"`, `"snappy"`, `"lz4"` or `"zstd"`.
    pub compression: Compression,
    /// Expose librdkafka's statistics as `walrelay_kafka_*`: about a dozen series per broker.
    pub metrics: bool,
    /// Other librdkafka properties. Those that a guarantee depends on are rejected, with the reason.
    pub properties: BTreeMap<String, String>,
}

/// TLS to Kafka.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// `"system"`, or a PEM file with the certificate authorities to trust.
    pub root_cert: String,
    /// The client's certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// The client's private key, PEM.
    pub key: Option<PathBuf>,
    /// The source of the key's password.
    pub key_password: Option<SecretRef>,
}

/// Authentication by SASL.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    pub mechanism: Mechanism,
    /// The user.
    pub username: String,
    /// The source of the password. It is read for each new producer.
    pub password: SecretRef,
}

/// Authentication by OAuth tokens.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Oauth {
    /// The program that prints a token, and its arguments.
    pub token_command: Vec<String>,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Mechanism {
    /// The password in clear text; only over TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Challenge and response with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Challenge and response with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    /// Gives the name that Kafka and the configuration have for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    Gzip,
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
            oauth: None,
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
