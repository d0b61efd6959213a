//! What the demo is asked for.

/// What the demo does.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many orders are written.
    pub orders: u32,
    /// How records are printed.
    pub form: Form,
    /// Colour and a pause between orders, for a person who watches.
    pub is_watched: bool,
}

/// How records are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// A few lines each.
    Human,
    /// One JSON object a line.
    Json,
}
