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
/// The part of its lifetime after which librdkafka asks for the token that replaces it.
const REFRESHED_AT: f64 = 0.8;
/// The part of its lifetime after which the token that replaces it is fetched.
const FETCHED_AT: f64 = 0.75;
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
    /// When librdkafka asks for the next token.
    renewed_by: Option<SystemTime>,
    /// Why the last attempt failed.
    error: Option<String>,
    /// When a token came that librdkafka had asked for in vain.
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

    /// Returns whether a failed authentication can be the consequence of a late token: the next one is overdue, or it
    /// came late and not long ago. The token before need not be expired: librdkafka authenticates again with it shortly
    /// before its end, and brokers refuse to be asked twice within a second.
    #[must_use]
    pub fn are_late(&self) -> bool {
        let Owner(shared) = &*self.0;
        let state = shared.lock();
        state.is_overdue() || state.late_at.is_some_and(|at| at.elapsed() < LATE)
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

impl State {
    /// Returns whether there should be another token by now.
    fn is_overdue(&self) -> bool {
        self.renewed_by.is_none_or(|by| by <= SystemTime::now())
    }

    fn set(&mut self, token: Token, lifetime: Duration) {
        if self.token.is_some() && self.is_overdue() {
            self.late_at = Some(Instant::now());
        }
        self.renewed_by = SystemTime::now().checked_add(lifetime.mul_f64(REFRESHED_AT));
        (self.token, self.error) = (Some(token), None);
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
                    self.lock().set(token, lifetime);
                    lifetime.mul_f64(FETCHED_AT).max(MIN_BACKOFF)
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
    fn a_token_is_late_before_the_one_before_expires_and_for_a_while_after_it_came() {
        let mut state = State::default();
        assert!(state.is_overdue());
        let token = |seconds| Token::new("t", SystemTime::now() + Duration::from_secs(seconds));
        state.set(token(60), Duration::from_secs(60));
        assert!(!state.is_overdue() && state.late_at.is_none(), "the first one is not late: {state:?}");
        state.set(token(60), Duration::from_secs(60));
        assert!(state.late_at.is_none(), "{state:?}");
        // Four fifths of its lifetime are over.
        state.renewed_by = Some(SystemTime::now());
        assert!(state.is_overdue() && state.token.as_ref().is_some_and(is_valid), "{state:?}");
        state.set(token(60), Duration::from_secs(60));
        assert!(!state.is_overdue() && state.late_at.is_some(), "{state:?}");
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
