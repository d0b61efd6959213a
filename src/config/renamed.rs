//! Renamed options. They are rejected: an ignored option would be replaced by a default without notice.

use toml::Value;

use super::origin::Origin;

/// The old path and the new one.
pub(super) const RENAMED: [(&str, &str); 2] = [
    ("source.stall_release_after", "source.disconnect_on_stall_after"),
    ("source.poll.batch_max", "source.poll.max_batch_rows"),
];

/// Gives the message about a renamed option that is given by this path, or inside a table that is. The new name is
/// written the way the old one was: as a path or as a variable.
pub(super) fn message(keys: &[String], value: &Value, origin: &Origin) -> Option<String> {
    let is_given = |old: &str| {
        let mut path = old.split('.');
        keys.iter().all(|key| path.next() == Some(key)) && path.try_fold(value, |value, key| value.get(key)).is_some()
    };
    let (old, new) = RENAMED.into_iter().find(|(old, _)| is_given(old))?;
    let new = match origin {
        Origin::Variable(_) => format!("WALRELAY_{}", new.replace('.', "__").to_uppercase()),
        Origin::File { .. } | Origin::Set(_) => new.to_owned(),
    };
    Some(format!("{old}: this option was renamed to `{new}`"))
}
