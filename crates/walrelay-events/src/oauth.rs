//! Tokens for Kafka's SASL mechanism OAUTHBEARER: AWS MSK with IAM, Azure Event Hubs with Entra, or an OpenID provider.
//!
//! The application supplies a function that fetches a token. It is called before the first connection, and again after
//! three quarters of each token's lifetime. If it fails, it is called again with a growing backoff, and a warning is
//! logged. Tokens are never logged.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use walrelay_events::oauth::{Token, TokenProvider};
//!
//! async fn fetch() -> Result<Token, std::io::Error> {
//!     // Ask the provider of your platform here.
//!     Ok(Token::new("the token", SystemTime::now() + Duration::from_secs(900)))
//! }
//!
//! let provider = TokenProvider::new(fetch);
//! ```

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde::Deserialize;

type Fetched = Pin<Box<dyn Future<Output = Result<Token, Box<dyn Error + Send + Sync>>> + Send>>;

/// Fetches tokens. It is called on the Tokio runtime of the application.
#[derive(Clone)]
pub struct TokenProvider(Arc<dyn Fn() -> Fetched + Send + Sync>);

/// A token with its expiry. Its `Debug` output does not contain it.
#[derive(Clone, Eq, PartialEq)]
pub struct Token {
    value: String,
    expires_at: SystemTime,
    principal: String,
}

/// A text is not a token of which the expiry can be read. The message does not contain the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("cannot read the expiry of the token: expected a JWT with the claim exp")]
pub struct BadToken;

impl TokenProvider {
    /// Takes an async function that fetches a token.
    pub fn new<F, Fut, E>(fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Token, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self(Arc::new(move || {
            let fetched = fetch();
            Box::pin(async move { fetched.await.map_err(Into::into) })
        }))
    }

    pub(crate) fn fetch(&self) -> Fetched {
        (self.0)()
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenProvider")
    }
}

impl PartialEq for TokenProvider {
    /// Compares identities.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Token {
    /// Takes a token and its expiry.
    pub fn new(value: impl Into<String>, expires_at: SystemTime) -> Self {
        Self { value: value.into(), expires_at, principal: String::new() }
    }

    /// Takes a JWT and reads its expiry from the claim `exp`. The signature is not verified; that is up to the brokers.
    pub fn from_jwt(value: impl Into<String>) -> Result<Self, BadToken> {
        let value = value.into();
        let claims = value.split('.').nth(1).and_then(base64url).ok_or(BadToken)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| BadToken)?;
        let since = Duration::try_from_secs_f64(claims.exp).map_err(|_| BadToken)?;
        let expires_at = UNIX_EPOCH.checked_add(since).ok_or(BadToken)?;
        Ok(Self { value, expires_at, principal: claims.sub.unwrap_or_default() })
    }

    /// Returns when the token expires.
    #[must_use]
    pub const fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    pub(crate) fn value(&self) -> &str {
        &self.value
    }

    pub(crate) fn principal(&self) -> &str {
        &self.principal
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// The claims of a JWT that are read.
#[derive(Deserialize)]
struct Claims {
    exp: f64,
    sub: Option<String>,
}

/// Decodes base64 with the alphabet for URLs, with or without padding.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut buffer, mut bits) = (Vec::with_capacity(text.len() * 3 / 4), 0_u32, 0_u32);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        buffer = (buffer << 6) | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((buffer >> bits) & 0xFF).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_of_a_jwt_is_read_and_the_token_is_not_printed() {
        // {"alg":"none"} . {"sub":"app","exp":1767225600.5}
        let text = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhcHAiLCJleHAiOjE3NjcyMjU2MDAuNX0.";
        let token = Token::from_jwt(text).unwrap();
        assert_eq!(token.expires_at(), UNIX_EPOCH + Duration::from_millis(1_767_225_600_500));
        assert_eq!((token.principal(), token.value()), ("app", text));
        assert!(!format!("{token:?}").contains("eyJ"), "{token:?}");
        for text in ["", "a", "a.b.c", "a.e30.c", "a.%.c", "eyJhbGciOiJub25lIn0.eyJleHAiOiJ4In0."] {
            assert_eq!(Token::from_jwt(text), Err(BadToken), "{text}");
        }
    }
}
