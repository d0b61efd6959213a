//! The OAuth token of a client that nobody polls.

use std::ffi::CString;
use std::ptr;

use rdkafka::bindings;
use rdkafka::client::OAuthToken;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;

/// The longest reason that librdkafka gives for a token that it does not take.
const MAX_REASON: usize = 512;

/// Gives a client a token. It does so by itself when it is polled. Returns whether the client takes it.
pub(in crate::consumer) fn set_token<C: ConsumerContext>(consumer: &BaseConsumer<C>, token: OAuthToken) -> bool {
    let (Ok(value), Ok(principal)) = (CString::new(token.token), CString::new(token.principal_name)) else {
        return false;
    };
    let mut reason = [0; MAX_REASON];
    // SAFETY: the client lives as long as the consumer. librdkafka copies both texts, reads no extension, because there
    // is none, and writes no more than the size that it is given.
    let code = unsafe {
        bindings::rd_kafka_oauthbearer_set_token(
            consumer.client().native_ptr(),
            value.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            reason.as_mut_ptr(),
            reason.len(),
        )
    };
    code == bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;

    use super::*;

    #[test]
    fn a_client_takes_a_token_that_is_valid_and_no_other() {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1").set("group.id", "g");
        config.set("security.protocol", "SASL_PLAINTEXT").set("sasl.mechanisms", "OAUTHBEARER");
        let consumer: BaseConsumer = config.create().unwrap();
        let token = |value: &str, lifetime_ms| OAuthToken {
            token: value.to_owned(),
            principal_name: "app".to_owned(),
            lifetime_ms,
        };
        assert!(set_token(&consumer, token("t", i64::MAX / 1_000_000)));
        assert!(!set_token(&consumer, token("t", 1)), "it is expired");
        assert!(!set_token(&consumer, token("t\0", i64::MAX / 1_000_000)));
    }
}
