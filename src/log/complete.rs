//! Next steps in log lines: their commands can be pasted.

use std::sync::OnceLock;

static COMPLETE: OnceLock<fn(&str) -> String> = OnceLock::new();

/// Passes every next step through `complete` from now on, so that its commands can be pasted.
pub fn complete_with(complete: fn(&str) -> String) {
    let _ = COMPLETE.set(complete);
}

pub(super) fn completed(text: &str) -> String {
    COMPLETE.get().map_or_else(|| text.to_owned(), |complete| complete(text))
}
