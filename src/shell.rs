//! Words of a command that a person pastes into a shell.

/// Quotes a word if it needs quotes.
#[must_use]
pub fn word(text: &str) -> String {
    let is_plain = text.chars().all(|char| char.is_ascii_alphanumeric() || "/._-+:@%,=".contains(char));
    if is_plain && !text.is_empty() { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
