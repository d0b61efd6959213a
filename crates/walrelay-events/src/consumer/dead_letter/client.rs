//! A producer client of librdkafka that is replaced when it cannot reach its brokers again. Each send waits for its
//! delivery report.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ProducerContext;
use rdkafka::producer::ThreadedProducer;
use rdkafka::statistics::Statistics;
use tokio::sync::oneshot;

use crate::consumer::raw;
use crate::kafka::Brokers;
use crate::kafka::Tokens;

/// The name and value of each header, in order.
pub(super) type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

pub(super) struct Client {
    config: ClientConfig,
    tokens: Option<Tokens>,
    current: Mutex<Arc<ThreadedProducer<DeliveryContext>>>,
}

/// Keeps an authentication error: librdkafka reports it only here, while the write that waits times out.
pub(super) struct DeliveryContext {
    authentication_error: Mutex<Option<ClientError>>,
    brokers: Brokers,
    tokens: Option<Tokens>,
}

impl DeliveryContext {
    fn new(config: &ClientConfig, tokens: Option<Tokens>) -> Self {
        Self { authentication_error: Mutex::default(), brokers: Brokers::of(config), tokens }
    }
}

impl ClientContext for DeliveryContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.tokens.as_ref().ok_or("set Config::token_provider")?.for_client()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(?level, facility, text, "librdkafka");
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(error = %error, reason, "dead-letter producer error");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            *self.authentication_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.brokers.note(&statistics);
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), ClientError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Self::DeliveryOpaque) {
        // It fails if the write was cancelled.
        let _ = report.send(result.as_ref().map(drop).map_err(|(error, _)| error.clone()));
    }
}

impl Client {
    pub(super) fn new(config: ClientConfig, tokens: Option<Tokens>) -> Result<Self, ClientError> {
        let context = DeliveryContext::new(&config, tokens.clone());
        let current = ThreadedProducer::from_config_and_context(&config, context)?;
        Ok(Self { config, tokens, current: Mutex::new(Arc::new(current)) })
    }

    /// Returns whether it may be unable to log in because its token came late. It tries again.
    pub(super) fn lacks_token(&self) -> bool {
        self.tokens.as_ref().is_some_and(Tokens::are_late)
    }

    /// Writes a record and returns after its delivery report. Without a partition the key chooses it.
    pub(super) async fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        headers: &Headers,
    ) -> Result<(), ClientError> {
        let (report, delivered) = oneshot::channel();
        let mut base = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, Box::new(report));
        base.partition = partition;
        base.key = key;
        base.payload = value;
        base.headers = Some(raw::headers::owned(headers.iter().map(|(name, value)| (&**name, value.as_deref()))));
        self.current()?.send(base).map_err(|(error, _)| error)?;
        delivered.await.unwrap_or(Err(ClientError::Canceled))
    }

    /// Returns the last authentication error, once.
    pub(super) fn take_authentication_error(&self) -> Option<ClientError> {
        let client = self.current().ok()?;
        client.context().authentication_error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns librdkafka's client. One that cannot recover is replaced.
    pub(super) fn current(&self) -> Result<Arc<ThreadedProducer<DeliveryContext>>, ClientError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = current.context().brokers.lost() {
            tracing::warn!(reason, "replacing dead-letter producer");
            let context = DeliveryContext::new(&self.config, self.tokens.clone());
            let new = Arc::new(ThreadedProducer::from_config_and_context(&self.config, context)?);
            let lost = std::mem::replace(&mut *current, new);
            // Dropping it blocks until it has ended.
            thread::spawn(move || drop(lost));
        }
        Ok(Arc::clone(&current))
    }
}
