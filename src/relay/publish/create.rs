//! Creates topics. Only `setup` does, when it is asked to.

use std::fmt;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::admin::AdminOptions;
use rdkafka::admin::NewTopic;
use rdkafka::admin::TopicReplication;
use rdkafka::client::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;

use walrelay_events::internal::Tokens;

use super::error::Error;
use super::settings::Settings;

/// The size of a new topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TopicSize {
    pub partitions: i32,
    /// Of each partition.
    pub replicas: i32,
    /// So many replicas must have a record before it is acknowledged.
    pub min_in_sync: i32,
}

/// A client that may change topics.
pub struct Admin(AdminClient<AdminContext>);

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// Creates the client. A token must come within `timeout`.
    pub fn start(settings: &Settings, timeout: Duration) -> Result<Self, Error> {
        let tokens = settings.tokens()?;
        if let Some(tokens) = &tokens {
            tokens.wait(timeout).map_err(|reason| Error::Token { reason })?;
        }
        let client = settings.client()?.create_with_context(AdminContext { tokens });
        client.map(Self).map_err(|source| Error::Configuration { source })
    }

    /// Creates a topic. The error is that of the brokers.
    pub async fn create(&self, name: &str, size: TopicSize, timeout: Duration) -> Result<(), RDKafkaErrorCode> {
        let min_in_sync = size.min_in_sync.to_string();
        let topic = NewTopic::new(name, size.partitions, TopicReplication::Fixed(size.replicas))
            .set("min.insync.replicas", &min_in_sync);
        let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
        let code = |error: KafkaError| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let created = self.0.create_topics([&topic], &options).await.map_err(code)?;
        created.into_iter().try_for_each(|created| created.map(drop).map_err(|(_, code)| code))
    }
}

/// Gives tokens to the client, and hides what librdkafka says besides.
struct AdminContext {
    tokens: Option<Tokens>,
}

impl ClientContext for AdminContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.tokens.as_ref().ok_or("set kafka.oauth.token_command")?.for_client()
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(facility, text, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = error.to_string(), reason, "librdkafka");
    }
}
