//! Signals: the first one asks for an orderly end, the second one ends at once.

use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_util::sync::CancellationToken;

/// What a shell expects of a program that ended because of Ctrl-C.
pub(super) const INTERRUPTED: u8 = 130;

/// Cancels `stop` at the first signal, and ends the process with `code` at the second one.
pub(super) async fn obey(stop: CancellationToken, code: i32) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be heard");
        return;
    };
    for times in 0.. {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if times > 0 {
            tracing::warn!("second signal: leaving at once; what was on the way is published again at the next start");
            std::process::exit(code);
        }
        stop.cancel();
    }
}
