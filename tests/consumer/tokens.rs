//! SASL OAUTHBEARER: a consumer stays in its group while its tokens are renewed, and while none can be fetched.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use walrelay_events::consumer::Config;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::InboxRetention;
use walrelay_events::consumer::Outcome;
use walrelay_events::oauth::Token;
use walrelay_events::oauth::TokenProvider;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;
use crate::support::kafka::Kafka;
use crate::support::token::unsecured_jwt;

#[test]
fn a_consumer_handles_events_beyond_the_lifetime_of_its_tokens_and_a_failure_of_their_provider() {
    let (kafka, door) = Kafka::with_tokens();
    let topic = Topic::create_on(&kafka, "tokens", 1, &[]);
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let provider = TokenProvider::new(move || {
        let number = count.fetch_add(1, Relaxed);
        async move {
            // First none, later none for longer than a token is valid.
            if number == 0 || (3..6).contains(&number) {
                return Err("the provider is down".to_owned());
            }
            Token::from_jwt(unsecured_jwt("app", Duration::from_secs(6))).map_err(|error| error.to_string())
        }
    });
    let mut config = Config::new(&door, "g", &["tokens"]);
    config.properties.insert("security.protocol".to_owned(), "SASL_PLAINTEXT".to_owned());
    config.token_provider = Some(provider);
    let reject_one = |delivery: Delivery| async move {
        if delivery.record.offset() == 0 { Outcome::dead_letter("as a test") } else { Outcome::Ack }
    };
    let log = Log::default();
    let mut member = Member::start_observed(config, reject_one, log.clone());
    let mut written = 0;
    while fetched.load(Relaxed) < 9 {
        topic.change(uuid::Uuid::now_v7(), "k", written + 1);
        topic.flush();
        written += 1;
        wait_until("the next token, or an event", || {
            member.check();
            log.count("ack") + log.count("dead-lettered") >= usize::try_from(written).unwrap()
        });
    }
    assert_eq!(log.count("dead-lettered tokens[0]@0"), 1);
    member.stop().unwrap();
}

#[test]
fn a_retention_that_cannot_be_checked_is_refused() {
    let mut config = Config::new("127.0.0.1:1", "g", &["t"]);
    config.inbox_retention = Some(InboxRetention::Forever);
    config.token_provider = Some(TokenProvider::new(|| async { Err::<Token, _>("never called".to_owned()) }));
    let ended = Member::start(config, |_: Delivery| async {}).join();
    assert!(matches!(&ended, Err(Error::Option(text)) if text.contains("inbox_retention")), "{ended:?}");
}
