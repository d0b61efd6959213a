//! What a setup is asked for.

/// What to do besides publication, slot and position.
#[derive(Clone, Debug, Default)]
pub struct SetupOptions {
    /// Create the outbox tables.
    pub with_outbox: bool,
    /// Grant this role the privileges that `run` needs.
    pub role: Option<String>,
    /// Start at the slot's position, although earlier events may be missing.
    pub accept_gap: bool,
}
