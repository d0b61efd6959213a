//! The tokens of a consumer's clients, if the application supplies them.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::consumer::config::Config;
use crate::consumer::error::Error;
use crate::kafka::Tokens;

/// The interval at which the wait for the first token checks for a stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// Starts to fetch tokens on the application's runtime.
pub(super) fn start(config: &Config, runtime: &Handle) -> Result<Option<Tokens>, Error> {
    let Some(provider) = config.token_provider.clone() else { return Ok(None) };
    let tokens = Tokens::from_provider(provider, runtime.clone());
    tokens.map(Some).map_err(|error| Error::Thread(error.to_string()))
}

/// Waits for the first token: a client without one would report that its authentication failed. Returns false if `stop`
/// was cancelled meanwhile.
pub(super) fn wait(tokens: Option<&Tokens>, stop: &CancellationToken) -> bool {
    let Some(tokens) = tokens else { return true };
    while !stop.is_cancelled() {
        if tokens.wait(STOP_CHECK).is_ok() {
            return true;
        }
    }
    false
}
