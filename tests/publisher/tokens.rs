//! SASL OAUTHBEARER: the application's tokens open the door, and are renewed before they expire.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use walrelay_events::oauth::Token;
use walrelay_events::oauth::TokenProvider;
use walrelay_events::publisher::Config;
use walrelay_events::publisher::Error;
use walrelay_events::publisher::Publisher;

use super::TIMEOUT;
use super::block_on;
use super::numbers;
use super::read;
use crate::support::kafka::Kafka;
use crate::support::token::unsecured_jwt;

fn config(door: &str, provider: TokenProvider) -> Config {
    let mut config = Config::new(door, "meters");
    config.delivery_timeout = TIMEOUT;
    config.properties.insert("security.protocol".to_owned(), "SASL_PLAINTEXT".to_owned());
    config.token_provider = Some(provider);
    config
}

#[test]
fn a_token_is_renewed_before_it_expires_also_after_the_provider_failed() {
    let (kafka, door) = Kafka::with_tokens();
    kafka.create_topic("tokens", 1);
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let provider = TokenProvider::new(move || {
        let number = count.fetch_add(1, Relaxed);
        async move {
            if number == 0 || number == 2 {
                return Err("the provider is down".to_owned());
            }
            Token::from_jwt(unsecured_jwt("app", Duration::from_secs(6))).map_err(|error| error.to_string())
        }
    });
    let published = block_on(async {
        let publisher = Publisher::new(config(&door, provider)).unwrap();
        let (began, mut number) = (Instant::now(), 0);
        // Several lifetimes: the broker ends a connection whose token is expired.
        while fetched.load(Relaxed) < 6 || began.elapsed() < Duration::from_secs(20) {
            publisher.publish("tokens", "k", &read(number)).await.unwrap();
            number += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        publisher.close().await.unwrap();
        number
    });
    assert_eq!(numbers(&kafka.bootstrap(), "tokens"), (0..published).collect::<Vec<_>>());
}

#[test]
fn without_a_valid_token_the_reason_is_given_and_no_token_is() {
    let (kafka, door) = Kafka::with_tokens();
    kafka.create_topic("refused", 1);
    let failing = TokenProvider::new(|| async { Err::<Token, _>("the provider is down".to_owned()) });
    let mut config = config(&door, failing);
    config.delivery_timeout = Duration::from_secs(15);
    let error = block_on(async {
        let publisher = Publisher::new(config).unwrap();
        publisher.publish("refused", "k", &read(1)).await.unwrap_err()
    });
    assert!(matches!(error, Error::NotAcknowledged { .. }), "{error}");
    assert!(error.to_string().contains("the provider is down"), "{error}");
}
