//! The options of the demo.

/// How much the demo writes, and how it prints.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The number of orders to write.
    pub orders: u32,
    /// How records are printed.
    pub form: Form,
    /// Print in color and pause between orders, for a person who watches.
    pub is_watched: bool,
}

/// How records are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// A few lines per record.
    Human,
    /// One JSON object per line.
    Json,
}
