//! The signals that stop a service.

use std::io;

use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// Completes when the process receives SIGTERM, as from Kubernetes and systemd, or SIGINT, as from Ctrl-C.
///
/// ```no_run
/// use walrelay_events::consumer::{Config, Consumer, Delivery, shutdown_signal};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), walrelay_events::consumer::Error> {
/// let config = Config::new("localhost:9092", "shipping", &["order-events"]);
/// Consumer::new(config, |_: Delivery| async {}).run(shutdown_signal()).await
/// # }
/// ```
///
/// The signals are handled from the first poll of this future on, for as long as the process lives: a second signal
/// does not end it. `Config::shutdown_timeout` bounds how long a shutdown takes. Several consumers of a process each
/// call this function.
pub async fn shutdown_signal() {
    match wait().await {
        Ok(signal) => tracing::info!(signal, "shutdown signal received"),
        Err(error) => {
            // The default action of the signals still ends the process.
            tracing::error!(%error, "cannot handle SIGTERM and SIGINT");
            std::future::pending::<()>().await;
        }
    }
}

async fn wait() -> io::Result<&'static str> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
