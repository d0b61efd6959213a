//! What the tests stand on: real servers, the real program, and a reader that shares nothing with it.

pub mod certificates;
pub mod chromium;
pub mod kafka;
pub mod murmur2;
pub mod otlp;
pub mod pooler;
pub mod program;
pub mod prometheus;
pub mod raw;
pub mod reader;
pub mod source;
pub mod terminal;
pub mod token;
