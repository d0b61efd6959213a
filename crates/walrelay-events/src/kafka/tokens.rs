//! Keeps the OAuth token of librdkafka's clients fresh.
//!
//! librdkafka asks for a token on the thread that polls it, which must not wait for an identity provider. So a thread
//! of its own fetches tokens in advance. librdkafka asks after four fifths of a token's lifetime; then the next one is
//! there.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use rdkafka::client::OAuthToken;
use tokio::runtime::Handle;

use crate::fault::chain;
use crate::oauth::Token;
use crate::oauth::TokenProvider;

/// The backoff between two attempts. It doubles.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// How long librdkafka waits for the first token.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// How long after a late token the consequences of the expired one can be seen.
const LATE: Duration = Duration::from_secs(30);
/// The timeout of one call of the application's provider.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Tokens for any number of clients. The thread ends with the last clone.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Owner>);

#[derive(Debug)]
struct Owner(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    /// Why the last attempt failed.
    error: Option<String>,
    /// When a token came after the one before had expired.
    late_at: Option<Instant>,
    has_ended: bool,
}

impl Tokens {
    /// Starts the thread that fetches tokens.
    pub fn start(fetch: impl Fn() -> Result<Token, String> + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let owner = Owner(Arc::clone(&shared));
        thread::Builder::new().name("kafka-tokens".to_owned()).spawn(move || shared.keep(&fetch))?;
        Ok(Self(Arc::new(owner)))
    }

    /// Starts the thread for the application's provider, whose futures run on this runtime.
    pub(crate) fn from_provider(provider: TokenProvider, runtime: Handle) -> io::Result<Self> {
        Self::start(move || {
            let (result, fetched) = mpsc::channel();
            let fetch = provider.fetch();
            runtime.spawn(async move {
                let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch).await;
                let _ = result.send(match fetched {
                    Ok(fetched) => fetched.map_err(|error| chain(&*error)),
                    Err(_) => Err(format!("the token provider did not return within {FETCH_TIMEOUT:?}")),
                });
            });
            // A runtime that has ended drops the task.
            fetched.recv().unwrap_or_else(|_| Err("the token provider panicked, or its runtime has ended".to_owned()))
        })
    }

    /// Waits until there is a token that is valid, or returns why the last attempt failed.
    pub fn wait(&self, timeout: Duration) -> Result<(), String> {
        self.valid(timeout).map(drop)
    }

    /// Returns why there is no valid token, if there is none.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.valid(Duration::ZERO).err()
    }

    /// Returns whether a failed authentication can be the consequence of an expired token: there is no valid one, or
    /// the next one came late and not long ago.
    #[must_use]
    pub fn are_late(&self) -> bool {
        let Owner(shared) = &*self.0;
        let state = shared.lock();
        let is_recent = state.late_at.is_some_and(|at| at.elapsed() < LATE);
        is_recent || !state.token.as_ref().is_some_and(is_valid)
    }

    /// Returns the token in the form of librdkafka's client. Waits a few seconds for it.
    pub fn for_client(&self) -> Result<OAuthToken, Box<dyn Error>> {
        self.for_client_within(FIRST_WAIT)
    }

    /// The same, without waiting.
    pub fn for_client_now(&self) -> Result<OAuthToken, Box<dyn Error>> {
        self.for_client_within(Duration::ZERO)
    }

    fn for_client_within(&self, timeout: Duration) -> Result<OAuthToken, Box<dyn Error>> {
        let token = self.valid(timeout)?;
        let since = token.expires_at().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(OAuthToken {
            token: token.value().to_owned(),
            principal_name: token.principal().to_owned(),
            lifetime_ms: i64::try_from(since.as_millis())?,
        })
    }

    fn valid(&self, timeout: Duration) -> Result<Token, String> {
        let Owner(shared) = &*self.0;
        let is_missing = |state: &mut State| !state.token.as_ref().is_some_and(is_valid);
        let waited = shared.changed.wait_timeout_while(shared.lock(), timeout, is_missing);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.token.clone().filter(is_valid).ok_or_else(|| {
            let error = state.error.clone();
            error.unwrap_or_else(|| "there is no token yet".to_owned())
        })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().has_ended = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn keep(&self, fetch: &dyn Fn() -> Result<Token, String>) {
        let mut backoff = MIN_BACKOFF;
        loop {
            let fetched = fetch().and_then(|token| {
                if is_valid(&token) { Ok(token) } else { Err("the token that was fetched is expired".to_owned()) }
            });
            let pause = match fetched {
                Ok(token) => {
                    backoff = MIN_BACKOFF;
                    let lifetime = token.expires_at().duration_since(SystemTime::now()).unwrap_or_default();
                    let mut state = self.lock();
                    if state.token.as_ref().is_some_and(|before| !is_valid(before)) {
                        state.late_at = Some(Instant::now());
                    }
                    (state.token, state.error) = (Some(token), None);
                    lifetime.mul_f64(0.75).max(MIN_BACKOFF)
                }
                Err(error) => {
                    tracing::warn!(error, "cannot fetch a Kafka token; retrying");
                    self.lock().error = Some(error);
                    let pause = backoff;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    pause
                }
            };
            self.changed.notify_all();
            let waited = self.changed.wait_timeout_while(self.lock(), pause, |state| !state.has_ended);
            if waited.unwrap_or_else(PoisonError::into_inner).0.has_ended {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_valid(token: &Token) -> bool {
    token.expires_at() > SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn a_token_is_fetched_again_before_it_expires_and_after_a_failure() {
        let fetched = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&fetched);
        let tokens = Tokens::start(move || match count.fetch_add(1, Relaxed) {
            0 => Err("the provider is down".to_owned()),
            number => Ok(Token::new(format!("t{number}"), SystemTime::now() + Duration::from_secs(4))),
        });
        let tokens = tokens.unwrap();
        tokens.wait(Duration::from_secs(60)).unwrap();
        let first = tokens.for_client().unwrap();
        assert_eq!(first.token, "t1");
        while tokens.for_client().unwrap().token == "t1" {
            thread::sleep(Duration::from_millis(20));
        }
        assert!(fetched.load(Relaxed) >= 3);
    }

    #[test]
    fn without_a_valid_token_the_reason_is_given() {
        let expired = Tokens::start(|| Ok(Token::new("t", SystemTime::UNIX_EPOCH))).unwrap();
        let reason = loop {
            match expired.failure() {
                Some(reason) if reason != "there is no token yet" => break reason,
                _ => thread::sleep(Duration::from_millis(20)),
            }
        };
        assert_eq!(reason, "the token that was fetched is expired");
        assert_eq!(expired.for_client().err().unwrap().to_string(), reason);
    }
}
