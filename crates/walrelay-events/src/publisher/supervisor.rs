//! The thread that replaces a client that cannot deliver any more.
//!
//! A new client is created only after the brokers have answered the old one: a request that is still under way could be
//! appended after records of the new client, and an old record of a key would follow newer ones.

use std::sync::Arc;
use std::time::Duration;

use crate::publisher::client::Client;
use crate::publisher::client::Reports;
use crate::publisher::client::Setup;
use crate::publisher::core::Core;
use crate::publisher::core::Task;

/// How often the old client is looked at.
const INTERVAL: Duration = Duration::from_millis(20);
/// The pause before a new client if the one before delivered nothing. It doubles.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Runs until the publisher ends.
pub(super) fn run(core: &Arc<Core>, mut setup: Setup) {
    let mut backoff = MIN_BACKOFF;
    loop {
        let (client, why) = match core.next_task() {
            Task::Replace(client, why) => (client, why),
            Task::End(client) => return drop(client),
        };
        tracing::warn!(why, "replacing Kafka client");
        let retired = client.retire();
        while !retired.is_answered() && !core.pause(INTERVAL) {}
        let needs = core.renew();
        if needs.smaller_batches {
            setup.shrink_batches();
        }
        if needs.no_backoff {
            backoff = MIN_BACKOFF;
        } else {
            core.pause(backoff);
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
        // A file with a secret or a key may be missing for a moment.
        while !install(core, &setup) && !core.pause(MAX_BACKOFF) {}
    }
}

fn install(core: &Arc<Core>, setup: &Setup) -> bool {
    match Client::new(setup, Arc::clone(core) as Arc<dyn Reports>) {
        Ok(client) => {
            core.install(client);
            true
        }
        Err(error) => {
            tracing::warn!(error = %error, "cannot create a Kafka client");
            false
        }
    }
}
