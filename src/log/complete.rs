//! Next steps in log lines: their commands can be run as they stand.

use std::sync::OnceLock;

/// How the commands in a next step are completed, if they are.
static COMPLETE: OnceLock<fn(&str) -> String> = OnceLock::new();

/// Passes every next step through this from now on, so that its commands can be run as they stand.
pub fn complete_with(complete: fn(&str) -> String) {
    let _ = COMPLETE.set(complete);
}

pub(super) fn completed(text: &str) -> String {
    COMPLETE.get().map_or_else(|| text.to_owned(), |complete| complete(text))
}
