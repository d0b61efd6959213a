//! Notices that the reader of standard output is gone, while there is nothing to write: `walrelay tail | head -1`.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::Ready;
use tokio::net::unix::pipe::Sender;
use tokio::runtime::Runtime;

/// How long one look takes.
const LOOK: Duration = Duration::from_millis(1);

/// Who reads standard output.
pub(super) struct Reader(Option<(Runtime, Sender)>);

impl Reader {
    /// Of an output that the system cannot watch, such as a file, the reader is never gone.
    pub(super) fn of_output() -> Self {
        Self(watch().ok())
    }

    /// Says whether a write would fail.
    pub(super) fn is_gone(&self) -> bool {
        let Self(Some((runtime, output))) = self else { return false };
        let look = async { tokio::time::timeout(LOOK, output.ready(Interest::ERROR)).await };
        runtime.block_on(look).is_ok_and(|ready| ready.is_ok_and(Ready::is_error))
    }
}

fn watch() -> io::Result<(Runtime, Sender)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    // Nothing is written through it, so the output need not be a pipe, and stays as it is.
    let output = Sender::from_owned_fd_unchecked(io::stdout().as_fd().try_clone_to_owned()?)?;
    drop(entered);
    Ok((runtime, output))
}
