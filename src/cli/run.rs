//! `walrelay run`: from the configuration to the last confirmed position.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config::Loaded;
use crate::fault::Exit;
use crate::metrics::Sources;
use crate::relay;
use crate::relay::Metrics;
use crate::relay::Mode;

use super::log;
use super::output::Output;
use super::report::Failed;
use super::signals;

/// Relays until a signal, or until an error that a person must act on.
pub(super) fn run(loaded: Loaded, output: &mut Output) -> Result<ExitCode, Failed> {
    let config = loaded.config;
    let guard = log::start(&config.log).map_err(Failed::new)?;
    let metrics = Metrics::default();
    let mut sources = match config.source.mode {
        Mode::Wal => Sources::new(&config.relay.name, &config.source.slot, &config.source.publication, metrics.clone()),
        Mode::Poll => Sources::of_polling(&config.relay.name, metrics.clone()),
    };
    sources.with_producer = config.kafka.metrics;
    sources.log_dropped = guard.dropped();
    sources.log_suppressed = guard.suppressed();
    let admin = admin::start(&config.http, Arc::new(sources)).map_err(Failed::new)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        librdkafka = rdkafka::util::get_rdkafka_version().1,
        openssl = openssl::version::version(),
        http = %admin.address(),
        "walrelay starts"
    );
    if config.source.mode == Mode::Wal && !config.source.store_position {
        tracing::warn!(
            "source.store_position is off: after a crash of PostgreSQL events may be repeated since the server last saved \
             the slot, and a slot that somebody else moved is not noticed"
        );
    }
    let stop = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(relay::Error::Thread);
    let runtime = runtime.map_err(Failed::new)?;
    let settings = config.relay_settings();
    let ended = runtime.block_on(async {
        let signals = tokio::spawn(signals::obey(stop.clone(), Exit::DrainTimeout as i32));
        let ended = Box::pin(relay::run(settings, metrics.clone(), stop)).await;
        signals.abort();
        ended
    });
    // A probe of brokers may still be waiting on its thread; nobody waits for it.
    runtime.shutdown_timeout(Duration::from_millis(10));
    match ended {
        Ok(()) => {
            tracing::info!("stopped; nothing is on the way");
            drop(admin);
            drop(guard);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            metrics.failed(error.component(), &error);
            drop(admin);
            drop(guard);
            let failed = Failed::new(error);
            Ok(failed.tell(output))
        }
    }
}
